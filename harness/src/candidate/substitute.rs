//! `$(NAME)` in what is installed on a cluster, beside the `$(NAME)` that Kubernetes itself has.

use super::cluster::VariablePolicy;

/// A `$(` that means nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unknown {
    /// From `$(` to the end of the name, as written.
    pub written: String,
    /// Why, if a value was looked for.
    pub reason: Option<String>,
}

impl std::fmt::Display for Unknown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.reason {
            Some(reason) => f.write_str(reason),
            None => write!(
                f,
                "unknown variable '{0}' (write '${0}' for what Kubernetes or a shell is to see)",
                self.written
            ),
        }
    }
}

/// A value, nothing if the harness does not know the name, or why there is no value.
type Value = Result<Option<String>, String>;

/// Replaces the variables of a text.
///
/// # Errors
/// With [`VariablePolicy::Strict`], the first `$(` that is no variable; always, the first variable whose value is missing.
pub fn substitute(
    text: &str,
    policy: VariablePolicy,
    lookup: &dyn Fn(&str) -> Value,
) -> Result<String, Unknown> {
    if policy == VariablePolicy::None {
        return Ok(text.to_owned());
    }
    let strict = policy == VariablePolicy::Strict;
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("$(") {
        let (before, from) = rest.split_at(at);
        if before.ends_with('$') {
            // Escaped for Kubernetes: ours to unescape only where every variable is ours.
            out.push_str(if strict { &before[..at - 1] } else { before });
            out.push_str("$(");
            rest = &from[2..];
            continue;
        }
        out.push_str(before);
        let name = from[2..].find(')').map(|end| &from[2..2 + end]);
        let unknown = |reason| {
            let end = name.map_or_else(
                || from.find(char::is_whitespace).unwrap_or(from.len()),
                |name| name.len() + 3,
            );
            Unknown {
                written: from[..end].to_owned(),
                reason,
            }
        };
        let value = match name {
            Some(name) if is_variable(name) => {
                lookup(name).map_err(|reason| unknown(Some(reason)))?
            }
            _ => None,
        };
        match (value, name) {
            (Some(value), Some(name)) => {
                out.push_str(&value);
                rest = &from[name.len() + 3..];
            }
            _ if strict => return Err(unknown(None)),
            _ => {
                out.push_str("$(");
                rest = &from[2..];
            }
        }
    }
    out.push_str(rest);
    Ok(out)
}

/// Whether a name could be one of ours: `NAME`, `ENV:NAME` or `IMAGE:name`.
fn is_variable(name: &str) -> bool {
    let (kind, name) = name.split_once(':').unwrap_or(("", name));
    let allowed = |c: char| c.is_ascii_alphanumeric() || "_-".contains(c);
    ["", "ENV", "IMAGE"].contains(&kind) && !name.is_empty() && name.chars().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lookup(name: &str) -> Value {
        match name {
            "HOST" => Ok(Some("control-plane".into())),
            "IMAGE:probe" => Ok(Some("probe:1".into())),
            "ENV:UNSET" => Err("the environment variable UNSET is not set".into()),
            _ => Ok(None),
        }
    }

    #[test]
    fn what_is_ours_and_what_is_not() {
        use VariablePolicy::{Known, None, Strict};
        let table = [
            (
                Strict,
                "a $(HOST):$(IMAGE:probe)",
                "a control-plane:probe:1",
            ),
            (
                Strict,
                "--node=$$(NODE_NAME) $(HOST)",
                "--node=$(NODE_NAME) control-plane",
            ),
            (Strict, "$$$(X)", "$$(X)"),
            (Strict, "$HOST ${HOST} 5$", "$HOST ${HOST} 5$"),
            (
                Known,
                "$(NODE_NAME) $$(HOST) $(HOST)",
                "$(NODE_NAME) $$(HOST) control-plane",
            ),
            (
                Known,
                "x=$(cat /etc/$(HOST))",
                "x=$(cat /etc/control-plane)",
            ),
            (Known, "$(", "$("),
            (Known, "$(no end", "$(no end"),
            (None, "$(HOST) $(ENV:UNSET)", "$(HOST) $(ENV:UNSET)"),
        ];
        for (policy, text, want) in table {
            assert_eq!(
                substitute(text, policy, &lookup).as_deref(),
                Ok(want),
                "{text}"
            );
        }
    }

    #[test]
    fn what_means_nothing_is_told() {
        use VariablePolicy::{Known, Strict};
        let table = [
            (
                Strict,
                "a $(NODE_NAME) b",
                "unknown variable '$(NODE_NAME)' (write '$$(NODE_NAME)'",
            ),
            (Strict, "$(hostname -f)", "'$(hostname -f)'"),
            (Strict, "$(HOST and more", "unknown variable '$(HOST'"),
            (Strict, "$(ENV:UNSET)", "UNSET is not set"),
            (Known, "$(ENV:UNSET)", "UNSET is not set"),
        ];
        for (policy, text, want) in table {
            let message = substitute(text, policy, &lookup)
                .expect_err(text)
                .to_string();
            assert!(message.contains(want), "{message}\nshould contain: {want}");
        }
    }
}
