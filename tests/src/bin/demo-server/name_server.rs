//! A name server for this process alone, on the loopback interface, that takes its time.
//!
//! Names are then looked up as everywhere, by `getaddrinfo`, and nothing leaves the machine: no network is needed, no file
//! of the system's is changed, and no right is asked for.

use std::{
    ffi::{c_char, c_int, c_ulong},
    io,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket},
    thread,
    time::Duration,
};

/// How long the answer takes, as from a server far away.
const DELAY: Duration = Duration::from_millis(12);
/// The longest message without extensions, bytes.
const LONGEST: usize = 512;
/// A message begins with so many bytes that are no question.
const HEADER: usize = 12;
/// A query for an IPv4 address.
const A: [u8; 2] = [0, 1];
/// The class of all names: the Internet's.
const IN: [u8; 2] = [0, 1];

/// Starts it, and tells where it listens. Every name has one IPv4 address, the loopback interface's.
pub fn start() -> io::Result<SocketAddrV4> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    let SocketAddr::V4(address) = socket.local_addr()? else {
        return Err(io::ErrorKind::AddrNotAvailable.into());
    };
    thread::Builder::new().name("name server".to_owned()).spawn(move || serve(&socket))?;
    Ok(address)
}

fn serve(socket: &UdpSocket) {
    let mut query = [0; LONGEST];
    loop {
        let answered = socket.recv_from(&mut query).and_then(|(length, from)| {
            let Some(answer) = answer(&query[..length]) else { return Ok(()) };
            if answer.is_found {
                thread::sleep(DELAY);
            }
            socket.send_to(&answer.message, from).map(drop)
        });
        if let Err(problem) = answered {
            eprintln!("demo-server: a name was not looked up: {problem}");
        }
    }
}

struct Answer {
    message: Vec<u8>,
    /// There is an address in it.
    is_found: bool,
}

/// What is answered to a query; nothing to what is none.
fn answer(query: &[u8]) -> Option<Answer> {
    let (header, rest) = query.split_at_checked(HEADER)?;
    let mut name = 0;
    while *rest.get(name)? != 0 {
        name += 1 + usize::from(rest[name]);
    }
    // Behind the name's last byte stand the type and the class.
    let question = rest.get(..name + 5)?;
    let is_found = question[name + 1..name + 3] == A;
    let mut message = header[..2].to_vec();
    // An answer, recursive as it was desired, without fault; one question and its answers.
    message.extend([0x81, 0x80, 0, 1, 0, u8::from(is_found), 0, 0, 0, 0]);
    message.extend(question);
    if is_found {
        // The name as at the message's twelfth byte; to be kept for no time; four bytes.
        message.extend([0xc0, HEADER as u8]);
        message.extend(A.iter().chain(&IN).chain(&[0, 0, 0, 0, 0, 4]));
        message.extend(Ipv4Addr::LOCALHOST.octets());
    }
    Some(Answer { message, is_found })
}

/// The first fields of glibc's `struct __res_state`, which programs may change by its `<resolv.h>`.
#[repr(C)]
struct ResolverState {
    retransmission_seconds: c_int,
    tries: c_int,
    options: c_ulong,
    server_count: c_int,
    servers: [libc::sockaddr_in; 3],
}

unsafe extern "C" {
    /// The calling thread's own.
    fn __res_state() -> *mut ResolverState;
    fn __nss_configure_lookup(database: *const c_char, services: *const c_char) -> c_int;
}

/// Has the calling thread ask this server whenever it looks up a name, and nobody else.
pub fn ask_only(server: SocketAddrV4) -> io::Result<()> {
    // SAFETY: it only fills the thread's own state from the system's files, or leaves it empty.
    if unsafe { libc::res_init() } != 0 {
        return Err(io::Error::other("the resolver can't be set up"));
    }
    // SAFETY: both are texts that end with a zero, which it only reads.
    if unsafe { __nss_configure_lookup(c"hosts".as_ptr(), c"dns".as_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let address = libc::sockaddr_in {
        sin_family: libc::AF_INET as libc::sa_family_t,
        sin_port: server.port().to_be(),
        sin_addr: libc::in_addr { s_addr: u32::from(*server.ip()).to_be() },
        sin_zero: [0; 8],
    };
    // SAFETY: it is the thread's own and filled, lives as long as the thread does, and begins with these fields.
    let state = unsafe { &mut *__res_state() };
    state.servers[0] = address;
    state.server_count = 1;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A query for `a.b` of this type.
    fn query(kind: u8) -> Vec<u8> {
        let header = [7, 9, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        [&header[..], &[1, b'a', 1, b'b', 0, 0, kind, 0, 1]].concat()
    }

    #[test]
    fn every_name_has_one_address() {
        let answer = answer(&query(1)).unwrap();
        assert!(answer.is_found);
        assert_eq!(answer.message[..8], [7, 9, 0x81, 0x80, 0, 1, 0, 1]);
        assert_eq!(answer.message[HEADER..HEADER + 9], query(1)[HEADER..]);
        assert_eq!(answer.message[HEADER + 9..], [0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4, 127, 0, 0, 1]);
    }

    #[test]
    fn no_name_has_an_address_of_another_kind() {
        let answer = answer(&query(28)).unwrap();
        assert!(!answer.is_found);
        assert_eq!(answer.message[6..8], [0, 0]);
        assert_eq!(answer.message[HEADER..], query(28)[HEADER..]);
    }

    #[test]
    fn what_is_no_query_is_not_answered() {
        for length in 0..query(1).len() {
            assert!(answer(&query(1)[..length]).is_none(), "{length}");
        }
        assert!(answer(&[0xff; LONGEST]).is_none());
    }
}
