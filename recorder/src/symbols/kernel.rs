//! The kernel's own functions, and those of its modules.

use std::{fs::File, io, io::Read};

use crate::timeline::{KernelSymbol, KernelSymbols};

const LIST: &str = "/proc/kallsyms";

/// What is read of the list, in bytes: ten times a large kernel's.
const LIST_BYTES: u64 = 256 << 20;

/// The names of the kernel's functions, as it tells them to those who may know.
#[derive(Debug, Default)]
pub struct KernelFunctions {
    /// Sorted by address, one for each.
    functions: Vec<Function>,
    /// All names, one after another.
    names: String,
    /// Names of modules; the first one is empty, and the kernel's own.
    modules: Vec<String>,
}

/// Where a name stands.
#[derive(Clone, Copy, Debug)]
struct Function {
    address: u64,
    name: u32,
    name_length: u16,
    module: u16,
}

impl KernelFunctions {
    /// Reads the list. It is empty where addresses are kept secret.
    pub fn read() -> io::Result<KernelFunctions> {
        let mut list = String::new();
        File::open(LIST)?.take(LIST_BYTES).read_to_string(&mut list)?;
        Ok(KernelFunctions::of(&list))
    }

    /// Lines of `ADDRESS KIND NAME`, and `[MODULE]` behind a tabulator where it is one's.
    fn of(list: &str) -> KernelFunctions {
        let mut all = KernelFunctions { modules: vec![String::new()], ..KernelFunctions::default() };
        for line in list.lines() {
            // Those that can't be understood are left out, as are variables, and addresses that are kept secret.
            all.add(line);
        }
        all.functions.sort_by_key(|function| function.address);
        // Of several names the first one listed is the function's own; section marks stand behind.
        all.functions.dedup_by_key(|function| function.address);
        all
    }

    fn add(&mut self, line: &str) -> Option<()> {
        let mut fields = line.split([' ', '\t']);
        let address = u64::from_str_radix(fields.next()?, 16).ok().filter(|&address| address != 0)?;
        if !matches!(fields.next()?, "t" | "T" | "w" | "W") {
            return None;
        }
        let name = fields.next()?;
        let module = match fields.next() {
            Some(module) => self.module(module.trim_matches(['[', ']'])),
            None => 0,
        };
        let (at, name_length) = (u32::try_from(self.names.len()).ok()?, u16::try_from(name.len()).ok()?);
        self.names.push_str(name);
        self.functions.push(Function { address, name: at, name_length, module });
        Some(())
    }

    /// Functions of a module stand together.
    fn module(&mut self, name: &str) -> u16 {
        if self.modules.last().is_none_or(|last| last != name) {
            self.modules.push(name.to_owned());
        }
        u16::try_from(self.modules.len() - 1).unwrap_or(0)
    }
}

impl KernelSymbols for KernelFunctions {
    /// The one that begins last before the address: where a function ends, the list does not tell.
    fn find(&self, address: u64) -> Option<KernelSymbol<'_>> {
        let behind = self.functions.partition_point(|function| function.address <= address);
        let function = self.functions.get(behind.checked_sub(1)?)?;
        let start = function.name as usize;
        let name = self.names.get(start..start + usize::from(function.name_length))?;
        let module = self.modules.get(usize::from(function.module)).map(String::as_str).filter(|name| !name.is_empty());
        Some(KernelSymbol { name, module })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = "\
ffffffff81000000 T _text
ffffffff81000200 t schedule
ffffffff81000300 D jiffies
0000000000000000 T secret
ffffffffc0000000 t ext4_read\t[ext4]
ffffffffc0000100 t ext4_write\t[ext4]
nonsense
";

    #[test]
    fn an_address_is_of_the_function_that_begins_before_it() {
        let functions = KernelFunctions::of(LIST);
        let found = |address| functions.find(address).map(|function| (function.name, function.module));
        assert_eq!(found(0xffff_ffff_8100_0200), Some(("schedule", None)));
        assert_eq!(found(0xffff_ffff_8100_0350), Some(("schedule", None)));
        assert_eq!(found(0xffff_ffff_c000_00ff), Some(("ext4_read", Some("ext4"))));
        assert_eq!(found(0xffff_ffff_c000_0100), Some(("ext4_write", Some("ext4"))));
        assert_eq!(found(0x1000), None);
    }

    #[test]
    fn a_kernel_that_keeps_its_addresses_secret_has_no_names() {
        assert!(KernelFunctions::of("0000000000000000 T schedule\n").functions.is_empty());
    }

    #[test]
    fn the_running_kernel_s_scheduler_is_known() {
        let functions = KernelFunctions::read().unwrap();
        let schedule = functions.functions.iter().find(|function| {
            functions.find(function.address).is_some_and(|found| found.name == "schedule" && found.module.is_none())
        });
        assert!(schedule.is_some());
    }
}
