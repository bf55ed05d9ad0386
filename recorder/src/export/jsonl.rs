//! Everything, one JSON object on each line. Content is `text` where it is UTF-8, else `base64`. `elapsed`: seconds since the
//! recording began; `took`: of a result, seconds since what it answers was sent.

use super::{ExportError, Exporter};
use crate::{
    Event, Header, frame, inert,
    replay::{Moment, What},
    sentence::stream_name,
};
use base64::{Engine, prelude::BASE64_STANDARD};
use serde::Serialize;
use serde_json::{Value, json};
use std::io::{self, Write};

pub(super) struct Jsonl;

type Object = serde_json::Map<String, Value>;

impl Exporter for Jsonl {
    fn begin(&mut self, header: &Header, out: &mut dyn Write) -> Result<(), ExportError> {
        let mut object = object(header)?;
        object.insert("event".to_owned(), "recording".into());
        Ok(writeln!(out, "{}", inert::json(&object.into()))?)
    }

    fn take(&mut self, moment: Moment, out: &mut dyn Write) -> Result<(), ExportError> {
        let mut object = object_of(&moment.what)?;
        object.insert("frame".to_owned(), moment.frame.into());
        object.insert("at".to_owned(), moment.at.to_string().into());
        object.insert("elapsed".to_owned(), moment.elapsed.as_secs_f64().into());
        if let Some(took) = moment.took {
            object.insert("took".to_owned(), took.as_secs_f64().into());
        }
        Ok(writeln!(out, "{}", inert::json(&object.into()))?)
    }
}

fn object(of: impl Serialize) -> Result<Object, ExportError> {
    match serde_json::to_value(of).map_err(io::Error::from)? {
        Value::Object(object) => Ok(object),
        other => Ok(Object::from_iter([("value".to_owned(), other)])),
    }
}

fn object_of(what: &What) -> Result<Object, ExportError> {
    let value = match what {
        What::Event(event) => {
            let mut object = object(event)?;
            if let Event::Data { data, .. } = event {
                let (name, content) = match std::str::from_utf8(data) {
                    Ok(text) => ("text", text.to_owned()),
                    Err(_) => ("base64", BASE64_STANDARD.encode(data)),
                };
                object.insert(name.to_owned(), content.into());
            }
            return Ok(object);
        }
        What::Counted { channel, stream, bytes, total, digest } => json!({
            "event": "counted", "channel": channel, "stream": stream_name(*stream),
            "bytes": bytes, "total": total, "sha256": frame::hex(digest),
        }),
        What::Total { channel, stream, total, kept, digest } => json!({
            "event": "total", "channel": channel, "stream": stream_name(*stream),
            "total": total, "kept": kept, "sha256": frame::hex(digest),
        }),
        What::Withheld { bytes } => json!({ "event": "withheld", "bytes": bytes }),
        What::End => json!({ "event": "end" }),
        What::Truncated { after } => json!({ "event": "truncated", "after": after }),
    };
    object(value)
}
