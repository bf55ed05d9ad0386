//! What the player looks like: a picture or a table, a timeline, and a line that says what goes on. It only draws.
//!
//! What always holds: whatever size there is, nothing is drawn outside it; text of the recording comes from a
//! [`Picture`] or was made harmless before.

use super::model::{Mode, Model, clock};
use ratatui::{
    Frame,
    buffer::Buffer,
    layout::Rect,
    style::{Color, Modifier, Style},
    text::Text,
    widgets::{Block, Clear, Paragraph, Widget as _, Wrap},
};
use regex::Regex;
use std::time::Duration;
use tidegate_recorder::{
    outline::{MarkKind, Row},
    picture::{Glyph, Ink, Look, Picture},
    stage::Stage,
};

const HELP: &str = "\
space        play, pause            + -        faster, slower
← →          5 seconds              PgUp PgDn  a minute
Home End     beginning, end         [ ]        mark before, next mark
i            cut pauses, or not     c          copy the screen as plain text
/            search                 n N        next place, place before
t            SQL: table, or lines   ↑ ↓        SQL: statement before, next
Enter        SQL: the whole statement
?            this page              q          quit

Marks: • something was done   × it failed   ◆ it was found here";

const QUIET: Style = Style::new().add_modifier(Modifier::DIM);
const BAR: Style = Style::new().add_modifier(Modifier::REVERSED);

/// Lines below the picture: timeline and status.
const BELOW: u16 = 2;

/// Everything. `sought`: what was searched for is marked on the screen.
pub(super) fn draw(frame: &mut Frame<'_>, model: &Model, stage: &Stage, arrived: bool, sought: Option<&Regex>) {
    let area = frame.area();
    let typed = u16::from(!stage.typed().is_empty());
    let height = area.height.saturating_sub(1 + BELOW + typed);
    let line = |y: u16| Rect { y, height: 1, ..area }.intersection(area);
    let body = Rect { y: 1, height, ..area }.intersection(area);
    let buffer = frame.buffer_mut();
    text(buffer, line(0), &model.title, BAR);
    match (model.table, stage.picture()) {
        (true, _) => table(buffer, body, model),
        (false, Some(picture)) => screen(buffer, body, &picture, sought),
        (false, None) => lines(buffer, body, stage),
    }
    if typed > 0 {
        text(buffer, line(1 + height), &format!("typed: {}", tail(stage.typed(), area.width)), QUIET);
    }
    timeline(buffer, line(1 + height + typed), model);
    text(buffer, line(2 + height + typed), &status(model, arrived), Style::new());
    match &model.mode {
        Mode::Help => over(frame, body, "keys", HELP, 0),
        Mode::Whole(whole, top) => over(frame, body, "statement", whole, *top),
        Mode::Watching | Mode::Asking(_) => {}
    }
}

fn text(buffer: &mut Buffer, area: Rect, line: &str, style: Style) {
    if !area.is_empty() {
        buffer.set_style(area, style);
        buffer.set_stringn(area.x, area.y, line, area.width.into(), style);
    }
}

/// The last characters that fit.
fn tail(line: &str, width: u16) -> String {
    let room = usize::from(width.saturating_sub(8));
    let over = line.chars().count().saturating_sub(room);
    line.chars().skip(over).collect()
}

/// What of a screen that is larger than the area: the part with the cursor.
fn screen(buffer: &mut Buffer, area: Rect, picture: &Picture, sought: Option<&Regex>) {
    let (column, row) = picture.cursor().unwrap_or_default();
    let first = |cursor: usize, room: u16| (cursor + 1).saturating_sub(usize::from(room));
    let (left, top) = (first(column, area.width), first(row, area.height));
    for (y, glyphs) in (area.top()..area.bottom()).zip(picture.rows().iter().skip(top)) {
        let found = sought.map(|pattern| columns_of(pattern, glyphs)).unwrap_or_default();
        let visible = glyphs.iter().enumerate().skip(left);
        for (x, (column, glyph)) in (area.left()..area.right()).zip(visible) {
            let Some(cell) = buffer.cell_mut((x, y)) else { continue };
            let fits = x.saturating_add(glyph.width.into()) <= area.right();
            cell.set_char(if glyph.width > 0 && fits { glyph.character } else { ' ' });
            let mut style = style_of(&glyph.look);
            if found.iter().any(|range| range.contains(&column)) {
                style = style.fg(Color::Black).bg(Color::Yellow);
            }
            cell.set_style(style);
        }
    }
    if let Some((column, row)) = picture.cursor() {
        let place =
            |at: usize, from: usize, start: u16| u16::try_from(at - from.min(at)).map(|at| at.saturating_add(start));
        if let (Ok(x), Ok(y)) = (place(column, left, area.x), place(row, top, area.y))
            && area.contains((x, y).into())
            && let Some(cell) = buffer.cell_mut((x, y))
        {
            cell.modifier.toggle(Modifier::REVERSED);
        }
    }
}

/// In which columns of a row it is found.
fn columns_of(pattern: &Regex, glyphs: &[Glyph]) -> Vec<std::ops::Range<usize>> {
    let (mut text, mut columns) = (String::new(), Vec::new());
    for (column, glyph) in glyphs.iter().enumerate().filter(|(_, glyph)| glyph.width > 0) {
        text.push(glyph.character);
        columns.resize(text.len(), column);
    }
    let column = |byte: usize| columns.get(byte).copied();
    let ranges = pattern.find_iter(text.trim_end()).filter(|found| !found.is_empty());
    ranges.filter_map(|found| Some(column(found.start())?..column(found.end() - 1)? + 1)).collect()
}

fn style_of(look: &Look) -> Style {
    let colour = |ink: Option<Ink>| match ink {
        None => Color::Reset,
        Some(Ink::Indexed(index)) => Color::Indexed(index),
        Some(Ink::Rgb(red, green, blue)) => Color::Rgb(red, green, blue),
    };
    let mut modifiers = Modifier::empty();
    for (on, modifier) in [
        (look.bold, Modifier::BOLD),
        (look.faint, Modifier::DIM),
        (look.italic, Modifier::ITALIC),
        (look.underline, Modifier::UNDERLINED),
        (look.strikethrough, Modifier::CROSSED_OUT),
        (look.inverse, Modifier::REVERSED),
    ] {
        modifiers.set(modifier, on);
    }
    Style::new().fg(colour(look.foreground)).bg(colour(look.background)).add_modifier(modifiers)
}

/// The last that were told.
fn lines(buffer: &mut Buffer, area: Rect, stage: &Stage) {
    let over = stage.lines().len().saturating_sub(area.height.into());
    for (y, line) in (area.top()..area.bottom()).zip(stage.lines().iter().skip(over)) {
        text(buffer, Rect { y, height: 1, ..area }, line, Style::new());
    }
}

fn table(buffer: &mut Buffer, area: Rect, model: &Model) {
    let [head, rows] = [Rect { height: 1, ..area }, Rect { y: area.y.saturating_add(1), ..area }];
    text(buffer, head.intersection(area), &row("TIME", "TOOK", "ROWS", "RESULT", "STATEMENT"), QUIET);
    let room = usize::from(area.height.saturating_sub(1));
    let first = (model.selected + 1).saturating_sub(room.div_ceil(2)).min(model.rows().len().saturating_sub(room));
    for (y, (number, statement)) in (rows.y..area.bottom()).zip(model.rows().iter().enumerate().skip(first)) {
        let mut style = if statement.error.is_some() { Style::new().fg(Color::Red) } else { Style::new() };
        if number == model.selected {
            style = style.add_modifier(Modifier::REVERSED);
        } else if statement.elapsed > model.at {
            style = style.add_modifier(Modifier::DIM);
        }
        text(buffer, Rect { y, height: 1, ..area }, &told(statement), style);
    }
}

fn told(statement: &Row) -> String {
    let took = statement.took.map(|took| format!("{:.1} ms", took.as_secs_f64() * 1000.0)).unwrap_or_default();
    let rows = statement.rows.map(|rows| rows.to_string()).unwrap_or_default();
    let result = statement.error.as_ref().or(statement.tag.as_ref()).map_or("", String::as_str);
    let result: String = result.chars().take(20).collect();
    row(&clock(statement.elapsed), &took, &rows, &result, &statement.text)
}

fn row(time: &str, took: &str, rows: &str, result: &str, statement: &str) -> String {
    format!("{time:>8} {took:>11} {rows:>8}  {result:20}  {statement}")
}

fn timeline(buffer: &mut Buffer, area: Rect, model: &Model) {
    if area.is_empty() {
        return;
    }
    text(buffer, area, &"─".repeat(area.width.into()), QUIET);
    let Some(outline) = &model.outline else { return };
    let mut put = |elapsed: Duration, symbol: char, style: Style| {
        let last = u128::from(area.width.saturating_sub(1));
        let part = elapsed.as_nanos().saturating_mul(last).checked_div(outline.length.as_nanos()).unwrap_or_default();
        let x = u16::try_from(part.min(last)).unwrap_or_default();
        if let Some(cell) = buffer.cell_mut((area.x.saturating_add(x), area.y)) {
            cell.set_char(symbol).set_style(style);
        }
    };
    for mark in outline.marks.iter().filter(|mark| mark.kind != MarkKind::Failure) {
        put(mark.elapsed, '•', Style::new().remove_modifier(Modifier::DIM));
    }
    for mark in outline.marks.iter().filter(|mark| mark.kind == MarkKind::Failure) {
        put(mark.elapsed, '×', Style::new().fg(Color::Red).remove_modifier(Modifier::DIM));
    }
    for hit in &model.hits {
        put(hit.elapsed, '◆', Style::new().fg(Color::Yellow).remove_modifier(Modifier::DIM));
    }
    put(model.at, '█', Style::new().remove_modifier(Modifier::DIM));
}

fn status(model: &Model, arrived: bool) -> String {
    if let Mode::Asking(text) = &model.mode {
        return format!("/{text}▏");
    }
    let sign = match (arrived, model.playing) {
        (false, _) => "…",
        (true, true) => "▶",
        (true, false) => "‖",
    };
    let length = model.length().map_or_else(|| "…".to_owned(), clock);
    let idle = model.idle.map(|idle| format!("  pauses ≤ {} s", idle.as_secs_f64())).unwrap_or_default();
    let marks = model.outline.iter().flat_map(|outline| outline.marks.iter().rev());
    let mark = marks.into_iter().find(|mark| mark.elapsed <= model.at).map(|mark| mark.text.clone());
    let said = if model.note.is_empty() { mark.unwrap_or_else(|| "? help".to_owned()) } else { model.note.clone() };
    format!("{sign} {} / {length}  {}×{idle}  {said}", clock(model.at), model.speed)
}

/// In a window over the picture.
fn over(frame: &mut Frame<'_>, area: Rect, title: &str, content: &str, top: u16) {
    if area.is_empty() {
        return;
    }
    let content = content.replace('\t', "    ");
    let widest = content.lines().map(|line| line.chars().count()).max().unwrap_or_default();
    // Lines are broken between words, so some room at their ends stays empty.
    let room = usize::from(area.width).saturating_sub(2 + 10).max(1);
    let lines = content.lines().map(|line| line.chars().count().div_ceil(room).max(1)).sum();
    let side = |size: usize, most: u16| u16::try_from(size + 2).unwrap_or(most).min(most);
    let (width, height) = (side(widest, area.width), side(lines, area.height));
    let window = Rect { x: area.x + (area.width - width) / 2, y: area.y + (area.height - height) / 2, width, height };
    let content = Paragraph::new(Text::raw(content)).wrap(Wrap { trim: false }).scroll((top, 0));
    Clear.render(window, frame.buffer_mut());
    content.block(Block::bordered().title(title)).render(window, frame.buffer_mut());
}
