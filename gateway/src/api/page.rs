//! Lists in parts: `?limit=` and `?after=ID`, and where the next part is (`Link`, RFC 8288).

use super::{peer::Caller, problem::Problem};
use axum::{
    Json,
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use tidegate_grants::{Listing, Sight};
use uuid::Uuid;

/// The most in one part.
const MOST: usize = 1000;

/// Which way a list goes. Ids sort by time, so an id that is gone still says where to go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    NewestFirst,
    OldestFirst,
}

/// Which part is asked for.
#[derive(Debug, Default)]
pub(super) struct Part {
    pub(super) limit: Option<usize>,
    pub(super) after: Option<Uuid>,
}

/// A list, or a part of it.
#[derive(Debug)]
pub(super) struct Listed<T> {
    items: Vec<T>,
    next: Option<HeaderValue>,
}

impl Part {
    /// What to read for it, newest first: this part, and whether there is more.
    pub(super) fn listing(&self, of: Sight, caller: &Caller) -> Result<Listing, Problem> {
        Ok(Listing { of, behind: self.after, most: self.limit(caller)?.checked_add(1) })
    }

    fn limit(&self, caller: &Caller) -> Result<usize, Problem> {
        match self.limit {
            Some(limit) if !(1..=MOST).contains(&limit) => {
                Err(Problem::refused(format!("limit: write a number from 1 to {MOST}")))
            }
            None if caller.is_local() => Ok(usize::MAX),
            limit => Ok(limit.unwrap_or(MOST)),
        }
    }

    /// This part of `all`, which is sorted by id. `address`: what the next part is asked for at, up to the question mark and
    /// beyond it where there is more. Who asks from afar gets no more than one part.
    pub(super) fn of<T>(
        self,
        all: Vec<T>,
        order: Order,
        id: impl Fn(&T) -> String,
        address: &str,
        caller: &Caller,
    ) -> Result<Listed<T>, Problem> {
        let limit = self.limit(caller)?;
        let after = self.after.map(|after| after.hyphenated().to_string());
        let behind = |item: &T| match (&after, order) {
            (None, _) => true,
            (Some(after), Order::NewestFirst) => id(item) < *after,
            (Some(after), Order::OldestFirst) => id(item) > *after,
        };
        let mut rest = all.into_iter().filter(behind);
        let items: Vec<T> = rest.by_ref().take(limit).collect();
        let next = match (rest.next(), items.last()) {
            (Some(_), Some(last)) => {
                let joint = if address.contains('?') { '&' } else { '?' };
                let link = format!("<{address}{joint}limit={limit}&after={}>; rel=\"next\"", id(last));
                HeaderValue::from_str(&link).ok()
            }
            _ => None,
        };
        Ok(Listed { items, next })
    }
}

impl<T: Serialize> IntoResponse for Listed<T> {
    fn into_response(self) -> Response {
        let mut response = Json(self.items).into_response();
        if let Some(next) = self.next {
            response.headers_mut().insert(header::LINK, next);
        }
        response
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_part_behind_an_id_that_is_gone_is_the_same() {
        let caller = Caller::new(&super::super::peer::tests::policy(), 1000, Some("ada".to_owned()));
        let ids = |numbers: &[u128]| -> Vec<String> {
            numbers.iter().map(|n| Uuid::from_u128(*n).hyphenated().to_string()).collect()
        };
        let part = |limit, after: Option<u128>, all: &[u128], order| {
            let part = Part { limit, after: after.map(Uuid::from_u128) };
            let listed = part.of(ids(all), order, Clone::clone, "/v1/leases?all=true", &caller).unwrap();
            (listed.items, listed.next.map(|next| next.to_str().unwrap().to_owned()))
        };
        let (first, next) = part(Some(2), None, &[1, 3, 5, 7], Order::OldestFirst);
        assert_eq!(first, ids(&[1, 3]));
        let at = ids(&[3]).remove(0);
        assert_eq!(next.unwrap(), format!("</v1/leases?all=true&limit=2&after={at}>; rel=\"next\""));
        assert_eq!(part(Some(2), Some(3), &[1, 5, 7], Order::OldestFirst), (ids(&[5, 7]), None));
        assert_eq!(part(Some(2), Some(3), &[7, 5, 2, 1], Order::NewestFirst), (ids(&[2, 1]), None));
        assert_eq!(part(None, None, &[7, 5], Order::NewestFirst), (ids(&[7, 5]), None));
    }
}
