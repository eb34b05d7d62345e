//! Which endpoint is asked next.

use std::{str::FromStr, sync::Arc};

/// Endpoints with their weights, in an order that is the same in every run and spreads each evenly: smooth weighted
/// round-robin. Of every `sum of weights` requests each endpoint gets exactly its weight.
#[derive(Clone, Debug)]
pub struct Mix(Vec<Share>);

#[derive(Clone, Debug)]
struct Share {
    endpoint: Arc<str>,
    weight: i64,
    /// How many requests this endpoint is owed, times the sum of weights.
    owed: i64,
}

impl Mix {
    pub fn next_endpoint(&mut self) -> Arc<str> {
        let sum: i64 = self.0.iter().map(|share| share.weight).sum();
        let mut most_owed = 0;
        for index in 0..self.0.len() {
            self.0[index].owed += self.0[index].weight;
            if self.0[index].owed > self.0[most_owed].owed {
                most_owed = index;
            }
        }
        self.0[most_owed].owed -= sum;
        Arc::clone(&self.0[most_owed].endpoint)
    }
}

impl FromStr for Mix {
    type Err = String;

    /// Reads `endpoint=weight,…`.
    fn from_str(text: &str) -> Result<Self, String> {
        text.split(',')
            .map(|share| {
                let (endpoint, weight) = share.split_once('=').ok_or(format!("`{share}` is no endpoint=weight"))?;
                let weight = weight.parse::<u16>().ok().filter(|weight| *weight > 0);
                let weight = weight.ok_or(format!("the weight of `{endpoint}` is no number from 1 to {}", u16::MAX))?;
                Ok(Share { endpoint: endpoint.into(), weight: weight.into(), owed: 0 })
            })
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_endpoint_is_asked_by_its_weight_and_spread_evenly() {
        let mut mix: Mix = "a=4,b=1,c=1".parse().unwrap();
        let round = (0..6).map(|_| mix.next_endpoint().to_string()).collect::<String>();
        assert_eq!(round, "aabaca");
        let next_round = (0..6).map(|_| mix.next_endpoint().to_string()).collect::<String>();
        assert_eq!(next_round, round);
    }

    #[test]
    fn what_is_no_mix_is_refused() {
        for text in ["", "ok", "ok=", "ok=0", "ok=-1", "ok=1,"] {
            assert!(text.parse::<Mix>().is_err(), "{text}");
        }
    }
}
