// Package checker is a model checker for tests: it reads the whole stream of a tenant and the
// history of the simulated tenant that it was made from, and reports every breach of the contract
// that the two together show.
//
// It shares no code with what it checks: it takes messages apart, normalises the vendor's rows,
// recomputes changes and replays watermarks by itself, from the contract's text. It imports the
// simulated tenant for the types of its record only.
//
// # What it knows
//
// The stored stream alone lacks most watermarks and states, which are rolled up: then commits are
// judged as far as their remains show them. With a Recording of everything republished since the
// start every commit is judged whole.
//
// The recorded pages say what was shown, and so whether an event may say it; faults can make a page
// differ from the truth. The history says what was true: it decides what must be in the stream in
// the end, and what lasted long enough to be there in between.
//
// # What it can't know
//
// Which answers rollcall took in: a page that was sent may have been dropped by a process that was
// killed. So every judgement is of the form "some answer showed it" or "no choice of answers can
// have shown it", never "this answer must have been used". What it reports is a breach; a
// report without any proves nothing.
package checker
