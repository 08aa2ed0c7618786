//! Flags as the Go client has them: `-name value`, durations as `100ms` or `10s`.

use std::collections::HashMap;
use std::time::Duration;

use crate::Outcome;

pub struct Flags(HashMap<String, String>);

impl Flags {
    pub fn parse(mut arguments: impl Iterator<Item = String>) -> Outcome<Self> {
        let mut found = HashMap::new();
        while let Some(argument) = arguments.next() {
            let name = argument.strip_prefix('-').ok_or(format!("unexpected argument {argument:?}"))?;
            let value = arguments.next().ok_or(format!("-{name} needs a value"))?;
            found.insert(name.to_owned(), value);
        }
        Ok(Self(found))
    }

    pub fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    pub fn required(&self, name: &str) -> Outcome<&str> {
        Ok(self.text(name).ok_or(format!("-{name} is required"))?)
    }

    pub fn number(&self, name: &str, default: u64) -> Outcome<u64> {
        self.text(name).map_or(Ok(default), |text| Ok(text.parse()?))
    }

    pub fn duration(&self, name: &str, default: Duration) -> Outcome<Duration> {
        let Some(text) = self.text(name) else { return Ok(default) };
        if let Some(count) = text.strip_suffix("ms") {
            return Ok(Duration::from_millis(count.parse()?));
        }
        let count = text.strip_suffix('s').ok_or(format!("-{name}: {text:?} is no duration"))?;
        Ok(Duration::from_secs(count.parse()?))
    }

    /// How long to wait for an answer.
    pub fn timeout(&self) -> Outcome<Duration> {
        self.duration("timeout", Duration::from_secs(10))
    }
}
