
(() => {
  const gone = document.getElementById("gone");
  let last = new Date();
  const again = async () => {
    if (document.hidden) return;
    try {
      const answer = await fetch(location.href, { cache: "no-store" });
      if (!answer.ok) throw new Error(answer.status);
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      const fresh = page.querySelector("main");
      if (!fresh) throw new Error("no page");
      const places = [...document.querySelectorAll(".scroll")].map((box) => [box.id, box.scrollLeft]);
      const focused = document.activeElement && document.activeElement.id;
      document.querySelector("main").replaceWith(document.adoptNode(fresh));
      for (const [id, left] of places) {
        const box = document.getElementById(id);
        if (box) box.scrollLeft = left;
      }
      if (focused && document.getElementById(focused)) document.getElementById(focused).focus({ preventScroll: true });
      document.title = page.title;
      last = new Date();
      if (gone.textContent) gone.textContent = "";
    } catch {
      const text = "silktail doesn't answer; this is how it was at " + last.toLocaleTimeString() + ".";
      if (gone.textContent !== text) gone.textContent = text;
    }
  };
  setInterval(again, 5000);
  document.addEventListener("visibilitychange", again);
})();
