//! The one thread on which all that is asynchronous runs: POSTs, the status page, what happens from time to time.

use std::future::Future;
use std::io;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::runtime::{Builder, EnterGuard, Handle};
use tokio::sync::oneshot;

/// How long the end waits for what can't be interrupted.
const PATIENCE: Duration = Duration::from_secs(1);

/// A runtime on a thread of its own, which ends with it. A scheduler for several threads would cost more for each POST, and
/// be none the faster: what one thread can send is more than endpoints take.
#[derive(Debug)]
pub struct Background {
    handle: Handle,
    end: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Background {
    /// Starts the thread.
    ///
    /// # Errors
    /// Those of starting a thread, and what the runtime needs of the system.
    pub fn start() -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (end, ended) = oneshot::channel();
        let drive = move || {
            // An error says that nobody is left who could end it.
            let _ = runtime.block_on(ended);
            runtime.shutdown_timeout(PATIENCE);
        };
        let thread = std::thread::Builder::new().name("delivery".into()).spawn(drive)?;
        Ok(Self { handle, end: Some(end), thread: Some(thread) })
    }

    /// Within the guard's life, what is spawned runs on this thread.
    pub fn enter(&self) -> EnterGuard<'_> {
        self.handle.enter()
    }

    /// Runs something beside its caller.
    pub fn spawn<T: Send + 'static>(
        &self,
        future: impl Future<Output = T> + Send + 'static,
    ) -> tokio::task::JoinHandle<T> {
        self.handle.spawn(future)
    }

    /// Waits for something.
    pub fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        self.handle.block_on(future)
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            // One that panicked has said so itself.
            let _ = thread.join();
        }
    }
}
