//! The TOML as it is written, with every value's place. Walked by hand, so that all mistakes are found at once.

use std::collections::HashSet;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::keys::{self, Section};
use super::report::Problem;

/// Collects problems of one file.
pub(super) struct Walk<'p> {
    pub source: usize,
    pub problems: &'p mut Vec<Problem>,
}

pub(super) type Value<'i> = Spanned<DeValue<'i>>;

impl Walk<'_> {
    pub fn error(&mut self, span: Range<usize>, message: impl Into<String>, label: &str, help: Option<String>) {
        let source = Some(self.source);
        self.problems.push(Problem {
            error: true,
            source,
            span,
            message: message.into(),
            label: label.to_owned(),
            help,
        });
    }

    pub fn warning(&mut self, span: Range<usize>, message: impl Into<String>, label: &str, help: Option<String>) {
        let source = Some(self.source);
        self.problems.push(Problem {
            error: false,
            source,
            span,
            message: message.into(),
            label: label.to_owned(),
            help,
        });
    }

    pub fn wrong_type(&mut self, value: &Value<'_>, name: &str, wanted: &str) {
        let is = match value.get_ref() {
            DeValue::String(_) => "a string",
            DeValue::Integer(_) => "a number",
            DeValue::Float(_) => "a number with a fraction",
            DeValue::Boolean(_) => "true or false",
            DeValue::Datetime(_) => "a date",
            DeValue::Array(_) => "a list",
            DeValue::Table(_) => "a table",
        };
        self.error(value.span(), format!("`{name}` must be {wanted}"), &format!("this is {is}"), None);
    }
}

/// A table whose keys are taken one by one; what is left is unknown.
pub(super) struct Table<'t, 'i> {
    table: &'t DeTable<'i>,
    pub span: Range<usize>,
    section: &'static Section,
    taken: HashSet<&'static str>,
}

impl<'t, 'i> Table<'t, 'i> {
    pub fn new(table: &'t DeTable<'i>, span: Range<usize>, section: &'static Section) -> Self {
        Self { table, span, section, taken: HashSet::new() }
    }

    pub fn take(&mut self, name: &'static str) -> Option<&'t Value<'i>> {
        debug_assert!(self.section.key(name).is_some(), "`{name}` of {} is missing in keys.rs", self.section.what);
        self.taken.insert(name);
        self.table.iter().find(|(key, _)| key.get_ref() == name).map(|(_, value)| value)
    }

    /// Where an empty list stands.
    pub fn empty_list(&self, name: &str) -> Option<Range<usize>> {
        let (_, value) = self.table.iter().find(|(key, _)| key.get_ref() == name)?;
        matches!(value.get_ref(), DeValue::Array(items) if items.is_empty()).then(|| value.span())
    }

    /// Where a key stands.
    pub fn key_span(&self, name: &str) -> Option<Range<usize>> {
        self.table.iter().find(|(key, _)| key.get_ref() == name).map(|(key, _)| key.span())
    }

    /// Whether something stands there, whatever its type.
    pub fn has(&self, name: &str) -> bool {
        self.table.iter().any(|(key, _)| key.get_ref() == name)
    }

    pub fn string(&mut self, walk: &mut Walk<'_>, name: &'static str) -> Option<(String, Range<usize>)> {
        let value = self.take(name)?;
        match value.get_ref() {
            DeValue::String(text) => Some((text.to_string(), value.span())),
            _ => {
                walk.wrong_type(value, name, "a string");
                None
            }
        }
    }

    pub fn boolean(&mut self, walk: &mut Walk<'_>, name: &'static str) -> Option<bool> {
        let value = self.take(name)?;
        match value.get_ref() {
            DeValue::Boolean(flag) => Some(*flag),
            _ => {
                walk.wrong_type(value, name, "true or false");
                None
            }
        }
    }

    pub fn number(&mut self, walk: &mut Walk<'_>, name: &'static str, least: u64) -> Option<(u64, Range<usize>)> {
        let value = self.take(name)?;
        match number_of(value) {
            Some(number) if number >= least => Some((number, value.span())),
            Some(_) => {
                walk.error(value.span(), format!("`{name}` must be at least {least}"), "this is less", None);
                None
            }
            None => {
                match value.get_ref() {
                    DeValue::Integer(number) if !number.as_str().starts_with('-') => {
                        walk.error(value.span(), format!("`{name}` is too large"), "no such number", None);
                    }
                    _ => walk.wrong_type(value, name, "a whole number, not negative"),
                }
                None
            }
        }
    }

    /// A list of strings, or one string.
    pub fn strings(&mut self, walk: &mut Walk<'_>, name: &'static str) -> Option<Vec<(String, Range<usize>)>> {
        let value = self.take(name)?;
        strings_of(walk, value, name)
    }

    pub fn tables(&mut self, walk: &mut Walk<'_>, name: &'static str, section: &'static Section) -> Vec<Table<'t, 'i>> {
        let Some(value) = self.take(name) else { return Vec::new() };
        let mut tables = Vec::new();
        let items: &[Value<'i>] = match value.get_ref() {
            DeValue::Array(items) => items,
            _ => {
                let wanted = format!("a list of tables, each begun with {}", section.heading);
                walk.wrong_type(value, name, &wanted);
                return Vec::new();
            }
        };
        for item in items {
            match item.get_ref() {
                DeValue::Table(table) => tables.push(Table::new(table, item.span(), section)),
                _ => walk.wrong_type(item, name, "a table"),
            }
        }
        tables
    }

    pub fn table(
        &mut self,
        walk: &mut Walk<'_>,
        name: &'static str,
        section: &'static Section,
    ) -> Option<Table<'t, 'i>> {
        let value = self.take(name)?;
        match value.get_ref() {
            DeValue::Table(table) => Some(Table::new(table, value.span(), section)),
            _ => {
                walk.wrong_type(value, name, "a table");
                None
            }
        }
    }

    pub fn entries(&self) -> impl Iterator<Item = (String, Range<usize>, &'t Value<'i>)> + use<'t, 'i> {
        self.table.iter().map(|(key, value)| (key.get_ref().to_string(), key.span(), value))
    }

    /// Says which keys nobody took.
    pub fn finish(self, walk: &mut Walk<'_>) {
        for (key, _) in self.table.iter() {
            let name: &str = key.get_ref();
            if self.taken.contains(name) {
                continue;
            }
            let near = nearest(name, self.section.keys.iter().map(|key| key.name));
            let slip = near.is_some_and(|near| strsim::damerau_levenshtein(name, near) == 1);
            let belongs = |name: &str| {
                let places: Vec<&str> = keys::sections_of(name).map(|section| section.place).collect();
                (!places.is_empty()).then(|| format!("it belongs {}", places.join(", or ")))
            };
            let elsewhere = || {
                let meant = nearest(name, keys::names())?;
                Some(format!("did you mean `{meant}`? {}", belongs(meant)?))
            };
            let here = near.map(|near| format!("did you mean `{near}`?"));
            let help = belongs(name).filter(|_| !slip).or(here).or_else(elsewhere);
            let label = format!("not a key of {}", self.section.what);
            walk.error(key.span(), format!("unknown key `{name}`"), &label, help);
        }
    }
}

pub(super) fn number_of(value: &Value<'_>) -> Option<u64> {
    match value.get_ref() {
        DeValue::Integer(number) => u64::from_str_radix(&number.as_str().replace('_', ""), number.radix()).ok(),
        _ => None,
    }
}

pub(super) fn strings_of(walk: &mut Walk<'_>, value: &Value<'_>, name: &str) -> Option<Vec<(String, Range<usize>)>> {
    match value.get_ref() {
        DeValue::String(text) => Some(vec![(text.to_string(), value.span())]),
        DeValue::Array(items) => {
            let mut strings = Vec::new();
            for item in items.iter() {
                match item.get_ref() {
                    DeValue::String(text) => strings.push((text.to_string(), item.span())),
                    _ => walk.wrong_type(item, name, "a list of strings"),
                }
            }
            Some(strings)
        }
        _ => {
            walk.wrong_type(value, name, "a list of strings");
            None
        }
    }
}

/// `did you mean …?`, where a known name was probably meant.
pub(super) fn did_you_mean<'n>(name: &str, known: impl IntoIterator<Item = &'n str>) -> Option<String> {
    nearest(name, known.into_iter()).map(|near| format!("did you mean `{near}`?"))
}

/// The known name that was probably meant.
pub(super) fn nearest<'n>(name: &str, known: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    known
        .map(|known| (strsim::damerau_levenshtein(name, known), known))
        .filter(|(distance, known)| *distance <= known.len().max(3) / 3)
        .min()
        .map(|(_, known)| known)
}
