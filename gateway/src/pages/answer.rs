//! Answering a request with a browser.

use super::{Pages, form, html, once::secret, said, source};
use crate::api::{Action, Caller, Problem};
use axum::{
    extract::{Path, Request, State},
    http::StatusCode,
    response::{Html, IntoResponse as _, Response},
};
use std::{collections::HashMap, sync::Arc, time::Instant};
use tidegate_grants::{RequestState, RequestView, duration};

/// A page that somebody was shown: they may answer this request by it, once.
#[derive(Debug)]
pub(super) struct Shown {
    caller: Caller,
    request: String,
}

/// Where the link leads: says who may answer, and nothing of the request.
pub(super) async fn ask(State(pages): State<Arc<Pages>>, Path(id): Path<String>) -> Response {
    let id = html::text(&id);
    let login = match pages.api.live.config().oidc {
        Some(_) => format!("<p><a href=\"/login?request={id}\">Log in</a> to see the request and to answer it.</p>"),
        None => String::new(),
    };
    let body = format!(
        "<h1>A request awaits an answer</h1>{login}<form method=\"post\" action=\"/approve/{id}\"><p><label>Or say who you are \
         by a token of your own, of scope <code>all</code>: <input type=\"password\" name=\"token\" autocomplete=\"off\" required></label> \
         <button>Show it</button></p></form>"
    );
    Html(html::page("A request awaits an answer", &body)).into_response()
}

/// A token of theirs, or their answer.
pub(super) async fn answer(State(pages): State<Arc<Pages>>, Path(id): Path<String>, request: Request) -> Response {
    let from = source(&request);
    let form = match form(request, &pages.url).await {
        Ok(form) => form,
        Err(refused) => return refused,
    };
    if let Some(token) = form.get("token") {
        tokio::time::sleep(pages.wrong.wait(from, pages.api.gate.now())).await;
        let bearer = match pages.api.gate.authority.bearer(token.trim(), pages.api.gate.now()).await {
            Ok(bearer) => bearer,
            Err(refused) => {
                pages.wrong.failed(from, pages.api.gate.now());
                return said(StatusCode::FORBIDDEN, &refused.to_string());
            }
        };
        return show(&pages, Caller::with_token(&pages.api.gate.authority.policy(), bearer), &id).await;
    }
    let shown =
        form.get("page").and_then(|page| pages.shown.take(page, Instant::now())).filter(|shown| shown.request == id);
    let Some(Shown { caller, request }) = shown else {
        return said(StatusCode::FORBIDDEN, "This page is over, or was answered already: open the link again.");
    };
    match decide(&pages, &caller, &request, &form).await {
        Ok(sentence) => said(StatusCode::OK, &sentence),
        Err(problem) => refused(&problem),
    }
}

async fn decide(pages: &Pages, caller: &Caller, id: &str, form: &HashMap<String, String>) -> Result<String, Problem> {
    let (authority, now) = (&pages.api.gate.authority, pages.api.gate.now());
    may(pages, caller).await?;
    let by = caller.own_voice()?;
    let reason = form.get("reason").cloned().unwrap_or_default();
    let view = match form.get("answer").map(String::as_str) {
        Some("approve") => authority.approve(by, id, None, now).await?,
        Some("deny") => authority.deny(by, id, reason, now).await?,
        _ => return Err(Problem::refused("say yes or no")),
    };
    Ok(match view.state {
        RequestState::Granted => format!("Approved: {} is granted.", view.wanted.entitlement),
        RequestState::Denied => "Denied.".to_owned(),
        _ => "Approved. Others must say yes too.".to_owned(),
    })
}

/// By the policy of this moment: between a page and its answer somebody may have been locked, or lost a group.
async fn may(pages: &Pages, caller: &Caller) -> Result<(), Problem> {
    let gate = &pages.api.gate;
    let who = caller.known()?;
    if let Some(locked) = gate.authority.locked_out(who, gate.now()).await? {
        return Err(Problem::new(StatusCode::FORBIDDEN, locked.to_string()));
    }
    let _ = caller.may(Action::DecideRequests)?;
    Ok(())
}

/// The request, to whoever may see it, with what an answer needs.
pub(super) async fn show(pages: &Pages, caller: Caller, id: &str) -> Response {
    let view = async {
        may(pages, &caller).await?;
        let by = caller.known()?.clone();
        Ok::<_, Problem>(pages.api.gate.authority.request_named(Some(&by), id, pages.api.gate.now()).await?)
    };
    let view = match view.await {
        Ok(view) => view,
        Err(problem) => return refused(&problem),
    };
    let Ok(page) = secret() else {
        return said(StatusCode::INTERNAL_SERVER_ERROR, "The gateway could not do this: tell your admin.");
    };
    let request = view.wanted.id.to_string();
    let body = body(&view, &page, caller.known().map_or("", |name| name.as_str()));
    pages.shown.hold(page, Shown { caller, request }, Instant::now());
    Html(html::page("A request", &body)).into_response()
}

fn body(view: &RequestView, page: &str, me: &str) -> String {
    let wanted = &view.wanted;
    let length = duration::show(std::time::Duration::from_secs(wanted.seconds));
    let mut rows = String::new();
    for (name, value) in [
        ("Who asks", Some(wanted.identity.to_string())),
        ("For", Some(format!("{} on {}", wanted.entitlement, wanted.target))),
        ("As", wanted.login.as_ref().map(ToString::to_string)),
        ("In", wanted.database.as_ref().map(ToString::to_string)),
        ("For how long", Some(length)),
        ("Why", wanted.reason.clone()),
        ("Ticket", wanted.ticket.clone()),
        ("Stands", Some(view.state.to_string())),
        ("You are", Some(me.to_owned())),
    ] {
        if let Some(value) = value {
            rows.push_str(&format!("<dt>{name}</dt><dd>{}</dd>", html::text(&value)));
        }
    }
    let form = match view.state {
        RequestState::Open => format!(
            "<form method=\"post\" action=\"/approve/{}\"><input type=\"hidden\" name=\"page\" value=\"{}\">\
             <p><button name=\"answer\" value=\"approve\">Approve</button></p>\
             <p><label>Why not: <input name=\"reason\" maxlength=\"400\"></label> <button name=\"answer\" value=\"deny\">Deny</button></p></form>",
            html::text(&wanted.id.to_string()),
            html::text(page)
        ),
        _ => String::new(),
    };
    format!("<h1>{} asks for access</h1><dl>{rows}</dl>{form}", html::text(wanted.identity.as_str()))
}

fn refused(problem: &Problem) -> Response {
    let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    said(status, &problem.detail)
}
