//! Objects in memory: for tests, and as the smallest example of an implementation.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::PathBuf;

use super::objects::{Object, Objects, Upload};
use crate::fs::Lock;
use crate::sync::{Arc, Mutex};

/// Objects that live as long as the last clone. Clones are the same place.
#[derive(Clone, Default)]
pub struct Memory {
    shared: Arc<Mutex<Shared>>,
}

#[derive(Default)]
struct Shared {
    objects: BTreeMap<String, Arc<Vec<u8>>>,
    /// The line of who has the lock.
    holder: Option<String>,
    random: u64,
    now_micros: u64,
}

#[derive(Debug)]
struct MemoryUpload {
    into: Memory,
    name: String,
    bytes: Vec<u8>,
}

#[derive(Debug)]
struct MemoryObject(Arc<Vec<u8>>);

#[derive(Debug)]
struct MemoryLock(Memory);

impl Memory {
    /// An empty place. Its random numbers and its clock are counters.
    #[must_use]
    pub fn new() -> Memory {
        Memory::default()
    }
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memory").finish_non_exhaustive()
    }
}

impl Objects for Memory {
    fn settle(&self) -> io::Result<()> {
        Ok(())
    }

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.shared.lock().objects.keys().cloned().collect())
    }

    fn put(&self, name: &str) -> io::Result<Box<dyn Upload>> {
        Ok(Box::new(MemoryUpload {
            into: self.clone(),
            name: name.to_owned(),
            bytes: Vec::new(),
        }))
    }

    fn get(&self, name: &str) -> io::Result<Arc<dyn Object>> {
        let shared = self.shared.lock();
        let bytes = shared.objects.get(name).ok_or(io::ErrorKind::NotFound)?;
        Ok(Arc::new(MemoryObject(Arc::clone(bytes))))
    }

    fn delete(&self, names: &[String]) -> io::Result<()> {
        let mut shared = self.shared.lock();
        names.iter().for_each(|name| drop(shared.objects.remove(name)));
        Ok(())
    }

    fn lock(&self, holder: &str) -> io::Result<Box<dyn Lock>> {
        let mut shared = self.shared.lock();
        if shared.holder.is_some() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        shared.holder = Some(holder.to_owned());
        Ok(Box::new(MemoryLock(self.clone())))
    }

    fn holder(&self) -> io::Result<Option<String>> {
        Ok(self.shared.lock().holder.clone())
    }

    fn display(&self, name: &str) -> PathBuf {
        PathBuf::from("memory:").join(name)
    }

    fn random(&self) -> u64 {
        let mut shared = self.shared.lock();
        shared.random += 1;
        // An odd multiplier: no number comes twice.
        shared.random.wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }

    fn now_micros(&self) -> u64 {
        let mut shared = self.shared.lock();
        shared.now_micros += 1;
        shared.now_micros
    }
}

impl Upload for MemoryUpload {
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn publish(self: Box<Self>) -> io::Result<()> {
        let MemoryUpload { into, name, bytes } = *self;
        let mut shared = into.shared.lock();
        if shared.objects.contains_key(&name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        shared.objects.insert(name, Arc::new(bytes));
        Ok(())
    }
}

impl Object for MemoryObject {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.len() as u64)
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let from = usize::try_from(offset).unwrap_or(usize::MAX);
        let bytes = self.0.get(from..).and_then(|rest| rest.get(..buffer.len()));
        buffer.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn evict(&self) -> io::Result<bool> {
        Ok(false)
    }
}

impl Lock for MemoryLock {}

impl Drop for MemoryLock {
    fn drop(&mut self) {
        self.0.shared.lock().holder = None;
    }
}
