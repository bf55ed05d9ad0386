//! Rows of results, as far as they are kept, and what is masked in them.
//!
//! What always holds: of a column that a mask means no value is kept; where it is not known which columns a row has, or its statement
//! names what is masked and the columns do not account for that, none of its values is. Of a row that is longer than
//! [`MOST_KEPT`] its beginning is kept.

use super::{
    super::{
        fields::{Fields, bounded},
        frame::{Go, Piece},
    },
    Found, MOST_KEPT, MOST_OF_A_NAME, Watch,
    parameters::{shows, type_name, value},
    talk::Reading,
    values,
};
use std::sync::Arc;
use tidegate_grants::{Masks, Results};
use tidegate_recorder::{
    Event,
    event::{Column, Parameter},
};

/// Under `"head"`, of each result so many rows,
const HEAD: u64 = 100;
/// and no more once they have taken so many bytes.
const HEAD_BYTES: usize = 64 * 1024;
/// Types of whole rows, beside those that each table has, which are not known here.
const RECORDS: [u32; 2] = [2249, 2287];

/// One field of RowDescription (chapter 55.7).
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Field {
    name: String,
    oid: u32,
    format: u16,
}

/// All of them.
pub(super) fn fields(mut body: Fields<'_>) -> Arc<[Field]> {
    let count = body.u16().unwrap_or(0);
    let field = |_| {
        let name = bounded(body.text(), MOST_OF_A_NAME);
        body.bytes(6)?; // the table, and which of its columns it is
        let oid = body.u32()?;
        body.bytes(6)?; // length and modifier
        Some(Field { name, oid, format: body.u16()? })
    };
    (0..count).map_while(field).collect()
}

/// What it costs to remember them.
pub(super) fn cost(fields: &[Field]) -> usize {
    fields.iter().map(|field| size_of::<Field>() + field.name.len()).sum()
}

/// The result whose rows come now.
#[derive(Debug)]
pub(super) struct Rows {
    of: Option<u64>,
    reading: Option<Arc<Reading>>,
    fields: Option<Arc<[Field]>>,
    /// Of each column the format that its values come in, and whether they are masked.
    shown: Vec<(u16, bool)>,
    /// Rows and bytes that were kept.
    kept: (u64, usize),
    /// Of the row that comes in pieces.
    taken: bool,
}

impl Rows {
    /// `reading`: as its question wants it read; none if it is not known what it answers.
    pub(super) fn new(
        of: Option<u64>,
        reading: Option<Arc<Reading>>,
        fields: Option<&Arc<[Field]>>,
        masks: &Masks,
    ) -> Self {
        let meant = |field: &Field| masks.mean(&field.name);
        let accounted = fields.map_or(0, |fields| fields.iter().filter(|field| meant(field)).count());
        let may_be_a_row = |oid| RECORDS.contains(&oid) || values::known(oid).is_none();
        let hidden = |field: &Field| !masks.is_empty() && (meant(field) || may_be_a_row(field.oid));
        let all = !masks.is_empty() && reading.as_ref().is_none_or(|reading| reading.named > accounted);
        let format = |nth, field: &Field| reading.as_ref().and_then(|it| it.format(nth)).unwrap_or(field.format);
        let shown = |(nth, field): (usize, &Field)| (format(nth, field), all || hidden(field));
        let shown = fields.map_or_else(Vec::new, |fields| fields.iter().enumerate().map(shown).collect());
        Self { of, reading, fields: fields.cloned(), shown, kept: (0, 0), taken: false }
    }

    /// With as many kept as of what stopped before, if it is of the same portal.
    fn after(mut self, suspended: Option<&Self>) -> Self {
        let portal = |rows: &Self| rows.reading.as_ref().map(Arc::as_ptr);
        if let Some(before) = suspended.filter(|before| portal(before).is_some() && portal(before) == portal(&self)) {
            self.kept = before.kept;
        }
        self
    }

    fn columns(&self) -> Option<Event> {
        let column = |(field, (_, masked)): (&Field, &(u16, bool))| Column {
            name: field.name.clone(),
            kind: type_name(field.oid),
            masked: *masked,
        };
        let columns = self.fields.as_ref()?.iter().zip(&self.shown).map(column).collect();
        Some(Event::Columns { of: self.of, columns })
    }

    /// A DataRow, of which `beyond` bytes are not here.
    fn values(&self, mut body: Fields<'_>, beyond: usize, masks: &Masks) -> Vec<Parameter> {
        let mut values = Vec::new();
        for nth in 0..usize::from(body.u16().unwrap_or(0)) {
            let column = self.fields.as_ref().and_then(|fields| fields.get(nth)).zip(self.shown.get(nth));
            let masked = column.map_or(!masks.is_empty(), |(_, (_, masked))| *masked);
            let Some(counted) = body.counted() else { break };
            values.push(match (counted, column) {
                _ if masked => Parameter::Masked,
                (None, _) => Parameter::Null,
                (Some((bytes, missing)), Some((field, (format, _)))) => {
                    let value = value(*format, field.oid, bytes, missing);
                    match value {
                        _ if !shows(masks, &value) => Parameter::Masked,
                        Parameter::Typed { text, .. } => Parameter::Text(text), // the columns say of which type
                        other => other,
                    }
                }
                // Text is by far the likelier; what is none is not taken for it.
                (Some((bytes, missing)), None) => match std::str::from_utf8(bytes) {
                    Ok(text) if !text.contains('\0') => value(0, 0, text.as_bytes(), missing),
                    _ => value(1, 0, bytes, missing),
                },
            });
        }
        if beyond > 0 {
            values.push(Parameter::Text(format!("… (the last {beyond} bytes of this row are not kept)")));
        }
        values
    }
}

impl Watch {
    /// The next piece of a DataRow.
    pub(super) fn row(&mut self, piece: Piece<'_>) -> Go {
        if self.keeps.results == Results::None {
            return Go::On;
        }
        let described = self.described.as_ref();
        let suspended = self.suspended.as_ref();
        let rows = self.rows_now.get_or_insert_with(|| self.talk.lock().rows(described).after(suspended));
        if piece.first {
            let (count, bytes) = rows.kept;
            rows.taken = self.keeps.results == Results::All || (count < HEAD && bytes < HEAD_BYTES);
        }
        if !rows.taken {
            return Go::On;
        }
        let room = MOST_KEPT.saturating_sub(self.pending.len());
        let held = piece.body.get(..room).unwrap_or(piece.body);
        self.pending.extend_from_slice(held);
        self.beyond += piece.body.len() - held.len();
        if piece.last {
            let (body, beyond) = (std::mem::take(&mut self.pending), std::mem::take(&mut self.beyond));
            if rows.kept.0 == 0 {
                self.found.extend(rows.columns().map(Found::Event));
            }
            rows.kept = (rows.kept.0 + 1, rows.kept.1 + body.len());
            let values = rows.values(Fields(&body), beyond, &self.keeps.masks);
            self.found.push(Found::Event(Event::Row { of: rows.of, values }));
        }
        Go::On
    }
}
