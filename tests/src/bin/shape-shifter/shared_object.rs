//! A shared object that this process loads while it runs.

use std::{
    ffi::{CStr, CString, c_void},
    io,
    mem::MaybeUninit,
    time::Duration,
};

use polletto_tests::workload::own_cpu_time;

/// Calls `callback` with `context` until that gives 0. Gives what it computed on the way.
type PluginWork = extern "C" fn(callback: extern "C" fn(*mut c_void) -> i32, context: *mut c_void) -> u64;

/// A loaded shared object that exports `plugin_work`. Stays loaded until it is closed.
pub struct SharedObject {
    handle: *mut c_void,
    work: PluginWork,
    base: usize,
}

impl SharedObject {
    /// Loads it.
    pub fn open(path: &str) -> io::Result<SharedObject> {
        let path = CString::new(path)?;
        // SAFETY: the path is a C string; what the object does when it is loaded is its author's, who is ours.
        let handle = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
        if handle.is_null() {
            return Err(last_error());
        }
        // SAFETY: the handle is of an object that is loaded.
        let address = unsafe { libc::dlsym(handle, c"plugin_work".as_ptr()) };
        if address.is_null() {
            return Err(last_error());
        }
        // SAFETY: a `Dl_info` of zeros is a valid one, and only written to.
        let mut info: libc::Dl_info = unsafe { MaybeUninit::zeroed().assume_init() };
        // SAFETY: both pointers are valid.
        unsafe { libc::dladdr(address, &raw mut info) };
        // SAFETY: every object that scenarios give to this program exports the symbol as a function of this type.
        let work = unsafe { std::mem::transmute::<*mut c_void, PluginWork>(address) };
        Ok(SharedObject { handle, work, base: info.dli_fbase.addr() })
    }

    /// Where it was loaded.
    pub fn base(&self) -> usize {
        self.base
    }

    /// Lets it use the CPU for so long.
    #[inline(never)]
    pub fn call(&self, length: Duration) -> u64 {
        let mut end = own_cpu_time() + length;
        std::hint::black_box((self.work)(until, (&raw mut end).cast()))
    }

    /// Unloads it.
    pub fn close(self) -> io::Result<()> {
        // SAFETY: the handle is valid, and nothing of the object is used after this.
        match unsafe { libc::dlclose(self.handle) } {
            0 => Ok(()),
            _ => Err(last_error()),
        }
    }
}

/// Whether there is time left. `context` is a `Duration`.
extern "C" fn until(context: *mut c_void) -> i32 {
    // SAFETY: `call` passes a pointer to a live `Duration`.
    i32::from(own_cpu_time() < unsafe { *context.cast::<Duration>() })
}

fn last_error() -> io::Error {
    // SAFETY: `dlerror` gives a C string that lives until the next call, or null.
    let message = unsafe { libc::dlerror() };
    if message.is_null() {
        return io::Error::other("a shared object failed without a reason");
    }
    // SAFETY: see above.
    io::Error::other(unsafe { CStr::from_ptr(message) }.to_string_lossy().into_owned())
}
