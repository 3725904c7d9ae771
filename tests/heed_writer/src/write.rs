//! The command `write`: commits all the time, and answers each line of standard input with one line of JSON.

use std::io::{self, BufRead, Write};
use std::process::{self, ExitCode};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use heed::MdbError;

use crate::json::Json;
use crate::options::WriteOptions;
use crate::store::{Environment, VECTOR};
use crate::window::Window;
use crate::workload::Workload;

const PAUSE_AFTER_ERROR: Duration = Duration::from_millis(1);
const NO_COMMAND: Duration = Duration::from_secs(3600);

type Fields = Vec<(&'static str, Json)>;

pub fn run(options: &WriteOptions) -> ExitCode {
    let opened: heed::Result<Vec<Environment>> =
        options.layouts.iter().map(|layout| Environment::open(layout, options)).collect();
    let environments = match opened {
        Ok(environments) => environments,
        Err(error) => {
            say(vec![("event", Json::text("failed")), ("problem", Json::text(error))]);
            return ExitCode::FAILURE;
        }
    };
    let mut writer = Writer {
        workload: Workload::new(options),
        environments,
        window: Window::new(),
        rate: options.rate,
        paused: options.paused,
        last_error: String::new(),
    };
    writer.fill();
    writer.commit();
    writer.window = Window::new();
    let pid = Json::Number(process::id().into());
    say(vec![("event", Json::text("ready")), ("counter", writer.counter()), ("pid", pid)]);
    writer.serve(&command_lines());
    say(writer.report());
    ExitCode::SUCCESS
}

struct Writer<'o> {
    workload: Workload<'o>,
    environments: Vec<Environment>,
    window: Window,
    rate: f64,
    paused: bool,
    last_error: String,
}

impl Writer<'_> {
    /// Commit and answer until told to stop.
    fn serve(&mut self, lines: &Receiver<String>) {
        let mut due = Instant::now();
        loop {
            let wait = if self.paused { NO_COMMAND } else { due - Instant::now() };
            match lines.recv_timeout(wait) {
                Ok(line) if line == "stop" => return,
                Ok(line) => match self.answer(&line) {
                    Ok(fields) => say(fields),
                    Err(problem) => say(vec![("problem", Json::text(problem))]),
                },
                Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) if self.paused => {}
                Err(RecvTimeoutError::Timeout) => {
                    // Late is late: a writer that was held up does not catch up in a burst.
                    due = Instant::now() + self.interval();
                    self.commit();
                }
            }
        }
    }

    fn interval(&self) -> Duration {
        if self.rate > 0.0 {
            Duration::from_secs_f64(1.0 / self.rate)
        } else {
            Duration::ZERO
        }
    }

    fn answer(&mut self, line: &str) -> Result<Fields, String> {
        match line.split_whitespace().collect::<Vec<_>>()[..] {
            ["stats"] => return Ok(self.report()),
            ["readers"] => return self.ask_each(|one| Ok(one.readers.list()?)),
            ["check-readers"] => return self.ask_each(|one| Ok(Json::Number(one.clear_stale_readers()? as u64))),
            ["commit"] => self.commit(),
            ["pause"] => self.paused = true,
            ["resume"] => self.paused = false,
            ["rate", rate] => {
                self.rate = rate.parse().map_err(|_| format!("{rate} is not a rate"))?;
            }
            _ => return Err(format!("unknown command {line}")),
        }
        Ok(vec![("counter", self.counter())])
    }

    fn ask_each(&self, ask: impl Fn(&Environment) -> heed::Result<Json>) -> Result<Fields, String> {
        let answers = self.environments.iter();
        answers.map(|one| Ok((one.layout.name, ask(one).map_err(|error| error.to_string())?))).collect()
    }

    /// The window's figures; a new window begins.
    fn report(&mut self) -> Fields {
        let mut fields = std::mem::replace(&mut self.window, Window::new()).report();
        fields.push(("counter", self.counter()));
        for (layout, field) in [("vector", "vector_file_bytes"), ("graph", "graph_file_bytes")] {
            let found = self.environments.iter().find(|one| one.layout.name == layout);
            let size = found.and_then(|one| one.file_size().ok());
            fields.push((field, size.map_or(Json::Null, Json::Number)));
        }
        fields
    }

    fn counter(&self) -> Json {
        Json::Number(self.environments[0].counter)
    }

    /// Commit until every environment has its nodes, or until a commit fails.
    fn fill(&mut self) {
        while self.environments.iter().any(|one| one.begin().is_ok_and(|change| self.workload.is_filling(&change))) {
            self.commit();
            if self.window.errors > 0 {
                return;
            }
        }
    }

    /// One transaction in each environment, one after the other as Ucotron does it; the first failure ends the round.
    fn commit(&mut self) {
        for index in 0..self.environments.len() {
            let start = Instant::now();
            match self.commit_one(index) {
                Ok(()) => self.window.note(start.elapsed()),
                Err(error) => return self.note_error(index, &error),
            }
        }
        self.window.commits += 1;
    }

    fn commit_one(&mut self, index: usize) -> heed::Result<()> {
        let first = &self.environments[0];
        let is_vector = std::ptr::eq(first.layout, &VECTOR);
        let vector_counter = if is_vector && index > 0 { first.counter } else { 0 };
        let environment = &self.environments[index];
        let mut change = environment.begin()?;
        self.workload.apply(environment.layout, &mut change)?;
        self.environments[index].counter = change.finish(vector_counter)?;
        Ok(())
    }

    fn note_error(&mut self, index: usize, error: &heed::Error) {
        self.window.errors += 1;
        if matches!(error, heed::Error::Mdb(MdbError::MapFull)) {
            self.window.map_full += 1;
        }
        let text = format!("{}: {error}", self.environments[index].layout.name);
        // A full map fails a thousand times a second: each kind of error is printed when it begins.
        if text != self.last_error {
            eprintln!("heed_writer: {text}");
            self.last_error = text;
        }
        thread::sleep(PAUSE_AFTER_ERROR);
    }
}

/// The lines of standard input; the channel closes at its end.
fn command_lines() -> Receiver<String> {
    let (sender, lines) = mpsc::channel();
    thread::spawn(move || {
        for line in io::stdin().lock().lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    lines
}

/// Print one line. Whoever should read it may be gone; then standard input ends as well.
fn say(fields: Fields) {
    let mut output = io::stdout().lock();
    let _ = writeln!(output, "{}", Json::Object(fields)).and_then(|()| output.flush());
}
