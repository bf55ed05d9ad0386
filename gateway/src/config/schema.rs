//! The JSON Schema of a configuration, for editors, made from the [`keys`](super::keys) that the parser goes by.
//!
//! Draft 7, the one that editors' TOML modes know. It sees the shape of a file: which keys there are, which must be there,
//! what each takes, which exclude each other. What it lets pass can still be a fault for `tidegate check`; what it refuses
//! always is one.

use super::{
    entitlements::{POSTGRES_KEYS, SSH_KEYS},
    keys::{INCLUDED, Key, ROOT, Table, Value as Takes},
};
use serde_json::{Map, Value, json};

/// Of `tidegate.toml`, or of a file that it includes.
pub(crate) fn schema(included: bool) -> Value {
    let (title, table) = if included { ("a part of a tidegate.toml", &INCLUDED) } else { ("tidegate.toml", &ROOT) };
    let mut schema = of_table("", table);
    if let Value::Object(schema) = &mut schema {
        schema.insert("$schema".to_owned(), json!("http://json-schema.org/draft-07/schema#"));
        schema.insert("title".to_owned(), json!(title));
    }
    schema.sort_all_objects(); // a change is a change of few lines
    schema
}

/// `name`: the key under which it stands.
fn of_table(name: &str, table: &Table) -> Value {
    let known = || table.keys.iter().filter(|key| !matches!(key.value, Takes::Later));
    let properties: Map<String, Value> = known().map(|key| (key.name.to_owned(), of_key(key))).collect();
    let required: Vec<&str> = known().filter(|key| key.required).map(|key| key.name).collect();
    let mut schema = json!({
        "type": "object",
        "description": table.about,
        "additionalProperties": false,
        "required": required,
        "properties": properties,
    });
    let rules = rules(name, table);
    if let (Value::Object(schema), false) = (&mut schema, rules.is_empty()) {
        schema.insert("allOf".to_owned(), Value::Array(rules));
    }
    schema
}

fn of_key(key: &Key) -> Value {
    let mut schema = of_value(key.name, &key.value);
    if let Value::Object(schema) = &mut schema {
        schema.insert("description".to_owned(), json!(key.about));
    }
    schema
}

fn of_value(name: &str, value: &Takes) -> Value {
    match value {
        Takes::Text => json!({ "type": "string", "minLength": 1 }),
        Takes::Like(pattern) => json!({ "type": "string", "pattern": pattern }),
        Takes::OneOf(words) => json!({ "type": "string", "enum": words }),
        Takes::Number(least, most) => json!({ "type": "integer", "minimum": least, "maximum": most }),
        Takes::Boolean => json!({ "type": "boolean" }),
        Takes::List(item, least) => json!({ "type": "array", "items": of_value(name, item), "minItems": least }),
        Takes::OneOrList(item) => {
            json!({ "oneOf": [of_value(name, item), of_value(name, &Takes::List(item, 1))] })
        }
        Takes::Labels => json!({ "type": "object", "additionalProperties": { "type": "string" } }),
        Takes::Selector => json!({ "oneOf": [
            { "type": "array", "items": { "type": "string" }, "minItems": 1 },
            { "type": "object", "additionalProperties": { "type": "string" }, "minProperties": 1 },
        ] }),
        Takes::Table(table) => of_table(name, table),
        Takes::Tables(table) => json!({ "type": "array", "items": of_table(name, table) }),
        // Left out, so that an editor says of it what it says of an unknown key.
        Takes::Later => Value::Bool(false),
    }
}

/// What keys of one table have to do with each other.
fn rules(name: &str, table: &Table) -> Vec<Value> {
    match name {
        "" if table.key("ssh").is_some() => vec![any_of(&["ssh", "postgres"])],
        "target" => {
            let ssh = ["host_key", "host_ca", "host_name", "principal"];
            let password = ["admin_password_file", "admin_password_env"];
            let postgres = ["tls_ca", "admin_user", "auth", "admin_address"];
            let host =
                json!({ "allOf": [one_of(&["host_key", "host_ca"]), none_of(&[&postgres[..], &password].concat())] });
            let server = json!({ "required": ["tls_ca", "admin_user"], "allOf": [none_of(&ssh)] });
            vec![
                when("kind", "ssh", host),
                when("kind", "postgres", server),
                json!({ "dependencies": { "host_name": ["host_ca"] } }),
                json!({
                    "if": { "properties": { "auth": { "const": "scram" } }, "required": ["auth"] },
                    "then": one_of(&password),
                    "else": none_of(&password),
                }),
            ]
        }
        "entitlement" => {
            let asked = json!({ "anyOf": [{ "required": ["approvals"] }, { "required": ["break_glass"] }] });
            vec![
                json!({ "oneOf": [
                    { "required": ["logins"], "allOf": [none_of(&POSTGRES_KEYS)] },
                    { "required": ["databases", "roles"], "allOf": [none_of(&SSH_KEYS)] },
                ] }),
                json!({ "dependencies": { "clock": asked, "escalate": asked, "extend": asked, "reason": asked, "ticket": asked } }),
            ]
        }
        "inventory" => vec![
            one_of(&["command", "directory"]),
            json!({ "dependencies": { "env": ["command"], "deadline": ["command"] } }),
        ],
        "workload" => vec![one_of(&["jwks_url", "jwks_file"]), json!({ "dependencies": { "tls_ca": ["jwks_url"] } })],
        "issuer" => {
            let secret = ["secret_file", "secret_env"];
            let shared = json!({ "allOf": [one_of(&secret), none_of(&["public_key"])] });
            let signed = json!({ "required": ["public_key"], "allOf": [none_of(&secret)] });
            vec![when("algorithm", "HS256", shared), when("algorithm", "EdDSA", signed)]
        }
        _ => Vec::new(),
    }
}

fn when(key: &str, is: &str, then: Value) -> Value {
    json!({ "if": { "properties": { key: { "const": is } }, "required": [key] }, "then": then })
}

fn each(keys: &[&str]) -> Vec<Value> {
    keys.iter().map(|key| json!({ "required": [key] })).collect()
}

fn any_of(keys: &[&str]) -> Value {
    json!({ "anyOf": each(keys) })
}

fn one_of(keys: &[&str]) -> Value {
    json!({ "oneOf": each(keys) })
}

fn none_of(keys: &[&str]) -> Value {
    json!({ "not": any_of(keys) })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use super::{super::tests::good, super::wrong, *};
    use std::{
        io::Write as _,
        path::{Path, PathBuf},
        process::{Command, Stdio},
    };

    /// The Python that `tests/run` has put a validator into. `None` where it could not be had, outside CI.
    fn interpreter() -> Option<PathBuf> {
        let target = std::env::current_exe().unwrap().ancestors().nth(3).unwrap().to_owned();
        let named = std::env::var_os("TIDEGATE_TEST_PYTHON").map(PathBuf::from);
        let python = named.unwrap_or_else(|| target.join("clients-venv/bin/python"));
        if python.exists() {
            return Some(python);
        }
        assert!(std::env::var_os("CI").is_none(), "{} is missing: ./tests/run makes it", python.display());
        eprintln!("SKIPPED: {} is missing; ./tests/run makes it", python.display());
        None
    }

    /// What a validator of others says first about each document: `null`, or what is wrong.
    fn validated(schema: &Value, documents: &[String]) -> Option<Vec<Option<String>>> {
        const SCRIPT: &str = "import json, sys, jsonschema\n\
            given = json.load(sys.stdin)\n\
            jsonschema.Draft7Validator.check_schema(given['schema'])\n\
            validator = jsonschema.Draft7Validator(given['schema'])\n\
            first = lambda document: next((e.message for e in validator.iter_errors(document)), None)\n\
            json.dump([first(document) for document in given['documents']], sys.stdout)\n";
        // What is no TOML is shown by any editor.
        let documents: Vec<Option<toml::Table>> = documents.iter().map(|text| text.parse().ok()).collect();
        let given = json!({ "schema": schema, "documents": documents }).to_string();
        let mut command = Command::new(interpreter()?);
        let mut child = command.args(["-c", SCRIPT]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(given.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "the validator (PyPI: jsonschema) did not run");
        Some(serde_json::from_slice(&output.stdout).unwrap())
    }

    fn deploy() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy")
    }

    /// Written anew with the snapshots, by `INSTA_UPDATE=always`.
    #[test]
    fn the_schemas_that_are_checked_in_are_those_that_are_printed() {
        for (included, name) in [(false, "tidegate.schema.json"), (true, "tidegate.included.schema.json")] {
            let (file, now) = (deploy().join(name), format!("{:#}\n", schema(included)));
            if std::env::var("INSTA_UPDATE").is_ok_and(|update| update == "always") {
                std::fs::write(&file, &now).unwrap();
            }
            let kept = std::fs::read_to_string(&file).unwrap();
            assert!(kept == now, "deploy/{name} is not what `tidegate config schema` prints: INSTA_UPDATE=always");
        }
    }

    #[test]
    fn every_configuration_that_is_shown_to_people_fits_the_schema() {
        let unmarked = |text: &str| -> String {
            text.lines().map(|line| format!("{}\n", line.strip_prefix("#: ").unwrap_or(line))).collect()
        };
        let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ";
        let template = include_str!("../init.toml")
            .replace("@NAME@", "gate")
            .replace("@STATE@", "\"state\"")
            .replace("@ADMIN@", "");
        let template =
            template.replace("@RECIPIENT@", "age1lvyvwawkr0mcnnnncaghunadrqkmuf9e6507x9y920xxpp866cnql7dp2z");
        let mut documents = vec![good(), unmarked(&template).replace("ssh-ed25519 AAAA…", key), template];
        for file in std::fs::read_dir(deploy().join("examples")).unwrap().map(|file| file.unwrap().path()) {
            if file.extension().is_some_and(|end| end == "toml") {
                documents.push(std::fs::read_to_string(file).unwrap());
            }
        }
        let Some(said) = validated(&schema(false), &documents) else { return };
        for (said, document) in said.iter().zip(&documents) {
            assert_eq!(*said, None, "{document}");
        }
    }

    #[test]
    fn the_schema_refuses_exactly_the_wrong_configurations_that_it_can_see() {
        let rows = wrong::texts();
        let documents: Vec<String> = rows.iter().map(|(_, text)| text.clone()).collect();
        let Some(said) = validated(&schema(false), &documents) else { return };
        let mistaken: Vec<String> = (rows.iter().zip(&said))
            .filter(|((row, _), said)| row.seen != said.is_some())
            .map(|((row, _), said)| format!("{:?}: {said:?}", row.wrong))
            .collect();
        assert!(mistaken.is_empty(), "{}", mistaken.join("\n"));
        assert!(said.iter().flatten().count() > 40);
    }

    #[test]
    fn a_part_that_is_included_has_entries_and_nothing_else() {
        let user = "[[user]]\nname = \"bob\"\n".to_owned();
        let documents = [user.clone(), format!("version = 1\n{user}"), "[[user]]\n".to_owned()];
        let Some(said) = validated(&schema(true), &documents) else { return };
        assert!(said.iter().map(Option::is_some).eq([false, true, true]), "{said:?}");
    }
}
