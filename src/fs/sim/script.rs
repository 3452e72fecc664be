//! The answers that lead to one crash state: found while the states are visited, printed with a violation, and read back.

use super::crash::{Atom, Choice};
use super::lazy::Key;
use super::plan::Plan;
use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;

/// Leads to one crash state of a workload; printed with each [`Violation`](super::Violation), and parsed from what was
/// printed. One part for each power cut, as `moment:answer.answer.answer`, joined by `/`: the second cut comes while the first
/// is recovered from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Script(pub(super) Vec<Cut>);

/// One power cut: at which of the moments, and how its questions are answered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Cut {
    pub(super) moment: usize,
    pub(super) answers: Vec<usize>,
}

impl fmt::Display for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, cut) in self.0.iter().enumerate() {
            let joint = if n == 0 { "" } else { "/" };
            let answers: Vec<String> = cut.answers.iter().map(usize::to_string).collect();
            write!(f, "{joint}{}:{}", cut.moment, answers.join("."))?;
        }
        Ok(())
    }
}

impl FromStr for Script {
    type Err = String;

    fn from_str(text: &str) -> Result<Script, String> {
        let bad = || format!("not a script: {text:?}");
        let cut = |part: &str| {
            let (moment, answers) = part.split_once(':')?;
            let answers = answers.split('.').filter(|answer| !answer.is_empty());
            Some(Cut {
                moment: moment.parse().ok()?,
                answers: answers.map(|answer| answer.parse().ok()).collect::<Option<_>>()?,
            })
        };
        let cuts = text.trim().split('/').map(cut).collect::<Option<_>>();
        cuts.map(Script).ok_or_else(bad)
    }
}

/// The questions of one power cut in the order in which they came up, with their answers.
#[derive(Debug, Default)]
pub(super) struct Sheet {
    /// Answers, and how many there were to choose from (0: not known).
    pub(super) script: Vec<(usize, usize)>,
    /// How many questions came up.
    pub(super) asked: usize,
    pub(super) atoms: Vec<Atom>,
    /// What is decided, so that copies of the disk agree.
    pub(super) made: HashMap<Key, usize>,
    /// Answers what the script does not; `None`: it stays open.
    plan: Option<Plan>,
    /// Numbers of the atoms, in the order in which any crash of the moment met them.
    pub(super) numbers: HashMap<Key, usize>,
    /// A question came up that has another number of answers than it had before.
    pub(super) strayed: bool,
}

impl Sheet {
    pub(super) fn new(
        script: Vec<(usize, usize)>,
        plan: Option<Plan>,
        numbers: HashMap<Key, usize>,
    ) -> Sheet {
        Sheet {
            script,
            asked: 0,
            atoms: Vec::new(),
            made: HashMap::new(),
            plan,
            numbers,
            strayed: false,
        }
    }

    /// The same answers, and no others.
    pub(super) fn as_given(&self) -> Sheet {
        Sheet {
            made: self.made.clone(),
            ..Sheet::default()
        }
    }

    pub(super) fn answers(&self) -> Vec<usize> {
        self.script[..self.asked]
            .iter()
            .map(|(answer, _)| *answer)
            .collect()
    }

    /// The next script in the order of counting; false if this was the last.
    pub(super) fn advance(script: &mut Vec<(usize, usize)>) -> bool {
        while script
            .pop_if(|(answer, options)| *answer + 1 >= *options)
            .is_some()
        {}
        match script.last_mut() {
            Some((answer, _)) => {
                *answer += 1;
                true
            }
            None => false,
        }
    }

    /// What was decided, for a person.
    pub(super) fn describe(&self) -> Vec<String> {
        let decided = self.atoms.iter().zip(&self.script);
        decided
            .map(|(atom, (answer, options))| format!("{atom}: {answer} of 0..{options}"))
            .collect()
    }

    pub(super) fn answer(&mut self, key: &Key, choice: Choice<'_>) -> Option<usize> {
        if let Some(made) = self.made.get(key) {
            return Some(*made);
        }
        let plan = self.plan.as_mut()?;
        let count = self.numbers.len();
        let number = *self.numbers.entry(key.clone()).or_insert(count);
        let options = choice.options;
        self.atoms.push(choice.atom.clone());
        match self.script.get_mut(self.asked) {
            None => self.script.push((plan.answer(number, choice), options)),
            Some(known) => {
                self.strayed |= known.1 != 0 && known.1 != options;
                *known = (known.0.min(options - 1), options);
            }
        }
        let answer = self.script[self.asked].0;
        self.asked += 1;
        self.made.insert(key.clone(), answer);
        Some(answer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_printed_script_is_read_back() {
        for text in ["0:", "12:0.1.3", "7:1/2:", "7:1.0/2:0.4"] {
            let script: Script = text.parse().expect("a script");
            assert_eq!(script.to_string(), text);
        }
        for bad in ["", "1", "x:0", "1:0.x", "1:0//2:"] {
            assert!(bad.parse::<Script>().is_err(), "{bad:?} was taken");
        }
    }
}
