//! What mustn't be seen: property keys and the token of the status page.

use std::path::Path;

use super::{Part, Resolver, Text};
use crate::config::raw::Table;
use crate::deliver::PropertyKey;
use crate::deliver::payload::redact;
use crate::small_file;
use crate::status::access::Token;

/// Whether a text that stands where a name should looks like a key or a token.
pub(super) fn is_secret(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.len() >= 16 && bytes.iter().all(u8::is_ascii_alphanumeric) && bytes.iter().any(u8::is_ascii_digit)
}

impl Resolver<'_> {
    /// `token`, or what `token_file` holds.
    pub(super) fn token(&mut self, given: Option<Text>, file: Option<Text>, part: &Part) -> Option<Token> {
        const LEAST: usize = 16;
        let source = part.source;
        let (text, span) = match (given, file) {
            (Some(_), Some((_, span))) => {
                let message = "`token` and `token_file` are both given";
                self.walk(source).error(span, message, "take one away", None);
                return None;
            }
            (given, None) => given?,
            (None, Some((name, span))) => match self.secret_file(&name, part) {
                Ok(text) => (text, span),
                Err(error) => {
                    self.walk(source).error(span, format!("cannot read the token from {error}"), "this file", None);
                    return None;
                }
            },
        };
        // What goes into a header, in every client.
        if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            let message = "the token must be visible ASCII characters without spaces";
            let help = Some("make one: openssl rand -hex 24".to_owned());
            self.walk(source).error(span, message, if text.is_empty() { "empty" } else { "not a token" }, help);
            return None;
        }
        if text.len() < LEAST {
            let help = Some("make one: openssl rand -hex 24".to_owned());
            self.walk(source).warning(span, "the token can be guessed", "fewer than 16 characters", help);
        }
        Some(Token::new(text))
    }

    /// A secret of its own file: in `$CREDENTIALS_DIRECTORY`, then beside the file that names it.
    fn secret_file(&self, name: &str, part: &Part) -> Result<String, String> {
        let credentials = (self.env)("CREDENTIALS_DIRECTORY").map(|folder| Path::new(&folder).join(name));
        let beside = part.path.parent().unwrap_or(Path::new("")).join(name);
        let path = credentials.filter(|path| path.exists()).unwrap_or(beside);
        match small_file::text(&path) {
            Ok(text) => Ok(text.trim_end_matches(['\n', '\r']).to_owned()),
            // Perhaps the secret itself stands here.
            Err(error) if is_secret(name) => Err(format!("`{}`: {error}", redact(name))),
            Err(error) => Err(format!("`{}`: {error}", path.display())),
        }
    }

    pub(super) fn property_key(&mut self, table: &mut Table<'_, '_>, part: &Part) -> Option<PropertyKey> {
        let source = part.source;
        let given = table.string(&mut self.walk(source), "property_key");
        let file = table.string(&mut self.walk(source), "property_key_file");
        let (key, span) = match (given, file) {
            (Some(_), Some((_, span))) => {
                self.walk(source).error(
                    span,
                    "`property_key` and `property_key_file` are both given",
                    "take one away",
                    None,
                );
                return None;
            }
            (Some(text), None) => self.expand(source, text)?,
            (None, Some((name, span))) => match self.secret_file(&name, part) {
                Ok(text) => (text, span),
                Err(error) => {
                    let message = format!("cannot read the property key from {error}");
                    self.walk(source).error(span, message, "this file", None);
                    return None;
                }
            },
            (None, None) => {
                if !table.has("property_key") && !table.has("property_key_file") {
                    let help = Some("in the browser's console: window.stConfig.propertyKey".to_owned());
                    self.walk(source).error(table.span.clone(), "a site has no `property_key`", "this site", help);
                }
                return None;
            }
        };
        if key.is_empty() {
            let help = Some("in the browser's console: window.stConfig.propertyKey".to_owned());
            self.walk(source).error(span, "the property key is empty", "fill it in", help);
            return None;
        }
        if key.len() != 32 || !key.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            let help = Some("compare it with window.stConfig.propertyKey".to_owned());
            self.walk(source).warning(span, "the property key is not 32 letters and digits", "looks wrong", help);
        }
        Some(PropertyKey::new(key))
    }
}
