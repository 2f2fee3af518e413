//! Finds out what must be done to get the addresses behind a [`ToSocketAddrs`].
#![allow(unsafe_code, reason = "to tell a name from other `ToSocketAddrs`")]

use std::any::TypeId;
use std::io;
use std::marker::PhantomData;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6, ToSocketAddrs};

/// What must be done to get an address.
#[derive(Debug, PartialEq)]
pub(crate) enum Question {
    Name(String, u16),
    /// `to_socket_addrs` returns at once.
    Numeric,
    Unknown,
}

/// Looks if the type is one whose conversion std has written. Those that hold a text may hold a name; the others hold
/// numbers.
pub(crate) fn question<A: ToSocketAddrs>(addr: &A) -> io::Result<Question> {
    if let Some(text) = view::<A, &str>(addr) {
        return question_of_text(text);
    }
    if let Some(text) = view::<A, &&str>(addr) {
        return question_of_text(text);
    }
    if let Some(text) = view::<A, String>(addr) {
        return question_of_text(text);
    }
    if let Some(text) = view::<A, &String>(addr) {
        return question_of_text(text);
    }
    if let Some((host, port)) = view::<A, (&str, u16)>(addr) {
        return Ok(question_of_host(host, *port));
    }
    if let Some((host, port)) = view::<A, &(&str, u16)>(addr) {
        return Ok(question_of_host(host, *port));
    }
    if let Some((host, port)) = view::<A, (String, u16)>(addr) {
        return Ok(question_of_host(host, *port));
    }
    if let Some((host, port)) = view::<A, &(String, u16)>(addr) {
        return Ok(question_of_host(host, *port));
    }
    let is_numeric = is::<A, SocketAddr>()
        || is::<A, &SocketAddr>()
        || is::<A, &[SocketAddr]>()
        || is::<A, SocketAddrV4>()
        || is::<A, SocketAddrV6>()
        || is::<A, (IpAddr, u16)>()
        || is::<A, (Ipv4Addr, u16)>()
        || is::<A, (Ipv6Addr, u16)>();
    Ok(if is_numeric {
        Question::Numeric
    } else {
        Question::Unknown
    })
}

/// Splits the text as std does.
fn question_of_text(text: &str) -> io::Result<Question> {
    if text.parse::<SocketAddr>().is_ok() {
        return Ok(Question::Numeric);
    }
    let (host, port) = text
        .rsplit_once(':')
        .ok_or_else(|| invalid_input("invalid socket address"))?;
    let port = port
        .parse()
        .map_err(|_| invalid_input("invalid port value"))?;
    Ok(Question::Name(host.to_owned(), port))
}

fn question_of_host(host: &str, port: u16) -> Question {
    if host.parse::<IpAddr>().is_ok() {
        Question::Numeric
    } else {
        Question::Name(host.to_owned(), port)
    }
}

/// Tells if the two types are the same except for lifetimes.
fn is<A, B: 'static>() -> bool {
    id::<A>() == TypeId::of::<B>()
}

/// Returns the identity of a type whose lifetimes are all taken as `'static`.
fn id<A>() -> TypeId {
    trait Id {
        fn id(&self) -> TypeId
        where
            Self: 'static;
    }
    impl<T> Id for PhantomData<T> {
        fn id(&self) -> TypeId
        where
            Self: 'static,
        {
            TypeId::of::<T>()
        }
    }
    let phantom = PhantomData::<A>;
    let phantom: &dyn Id = &phantom;
    // SAFETY: the method touches nothing that has a lifetime. `Self: 'static` only keeps `TypeId::of` from being
    // asked for types that differ only in lifetimes, and here such types are meant to be the same.
    let phantom = unsafe { std::mem::transmute::<&dyn Id, &(dyn Id + 'static)>(phantom) };
    phantom.id()
}

/// Returns the value as a `B`, if the types are the same except for lifetimes. The lifetimes that `B` names are
/// wrong: the caller must let nothing of it outlive `value`.
fn view<A, B: 'static>(value: &A) -> Option<&B> {
    // SAFETY: the types differ only in lifetimes, so their values are the same. The callers are all in `question` and
    // copy what they see.
    is::<A, B>().then(|| unsafe { &*std::ptr::from_ref(value).cast::<B>() })
}

pub(crate) fn invalid_input(text: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, text)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "unwrap is for tests")]
#[allow(
    clippy::needless_borrows_for_generic_args,
    reason = "references are types of their own here"
)]
mod tests {
    use std::io;
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};

    use super::{Question, question};

    fn check_name(addr: impl ToSocketAddrs, host: &str) {
        let expected = Question::Name(host.to_owned(), 80);
        assert_eq!(question(&addr).unwrap(), expected);
    }

    fn check_is(addr: impl ToSocketAddrs, expected: &Question) {
        assert_eq!(question(&addr).unwrap(), *expected);
    }

    #[test]
    fn names_are_told_from_numbers_in_every_type_that_std_converts() {
        let owned = String::from("a.example:80");
        check_name("a.example:80", "a.example");
        check_name(owned.as_str(), "a.example");
        check_name(&&*owned, "a.example");
        check_name(&owned, "a.example");
        check_name(owned.clone(), "a.example");
        let host = String::from("a.example");
        check_name((host.as_str(), 80), "a.example");
        check_name(&(host.as_str(), 80), "a.example");
        check_name(&(host.clone(), 80), "a.example");
        check_name((host, 80), "a.example");

        let addr: SocketAddr = "[::1]:80".parse().unwrap();
        let list = [addr; 2];
        let numeric = &Question::Numeric;
        check_is("127.0.0.1:80", numeric);
        check_is("[::1]:80", numeric);
        check_is(("::1", 80), numeric);
        check_is(addr, numeric);
        check_is(&addr, numeric);
        check_is(&list[..], numeric);
        check_is((IpAddr::from([127, 0, 0, 1]), 80), numeric);
        check_is((Ipv4Addr::LOCALHOST, 80), numeric);
        check_is((Ipv6Addr::LOCALHOST, 80), numeric);
        for wrong in [
            "a.example",
            "a.example:",
            "a.example:http",
            "a.example:70000",
        ] {
            let error = question(&wrong).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
            let std = wrong.to_socket_addrs().unwrap_err();
            assert_eq!(error.to_string(), std.to_string(), "as std has it");
        }
    }

    #[test]
    fn another_type_is_asked_where_it_may_block() {
        struct Own;
        impl ToSocketAddrs for Own {
            type Iter = std::option::IntoIter<SocketAddr>;

            fn to_socket_addrs(&self) -> io::Result<Self::Iter> {
                Ok(Some("127.0.0.1:9".parse().unwrap()).into_iter())
            }
        }
        check_is(Own, &Question::Unknown);
        let addrs = crate::resolve(Own).unwrap();
        assert_eq!(addrs, ["127.0.0.1:9".parse().unwrap()]);
    }
}
