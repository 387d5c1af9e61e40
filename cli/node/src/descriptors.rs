//! How many files and sockets a process may have open.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Has the process have as many as it may: each client takes one. The 1024 that processes begin with are for select(2),
/// which takes no higher numbers, and which nobody here calls.
pub fn raise_limit() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current == maximum {
        return;
    }
    let all = Rlimit {
        current: maximum,
        maximum,
    };
    if let Err(error) = setrlimit(Resource::Nofile, all) {
        let current = current.map_or_else(|| "any number of".to_owned(), |current| current.to_string());
        tracing::warn!("the process stays with {current} file descriptors: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_raised_to_what_is_allowed() {
        let limits = getrlimit(Resource::Nofile);
        // One less does not disturb tests that run beside this one.
        let lower = Rlimit {
            current: limits.maximum.map(|most| most - 1),
            ..limits
        };
        setrlimit(Resource::Nofile, lower).unwrap();
        raise_limit();
        assert_eq!(getrlimit(Resource::Nofile).current, limits.maximum);
    }
}
