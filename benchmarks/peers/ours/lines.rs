//! The conversation of a timing run: requests line by line on standard input, one JSON line for each on standard output.

use std::io::BufRead;

/// Says `ready DESCRIPTION`, then answers every line until `quit` or the end of the input. None is a request that is not known.
pub(crate) fn answer_lines(description: &str, mut answer: impl FnMut(&str) -> Option<String>) {
    println!("ready {description}");
    for line in std::io::stdin().lock().lines() {
        let Ok(line) = line else { break };
        let request = line.trim();
        if request == "quit" {
            break;
        }
        println!(
            "{}",
            answer(request).unwrap_or_else(|| r#"{"error": "unknown request"}"#.to_owned())
        );
    }
}
