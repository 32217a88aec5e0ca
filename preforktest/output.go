package preforktest

import (
	"bufio"
	"fmt"
	"os"
	"regexp"
	"strings"
	"sync"
	"time"
)

// output holds the output of a program. One goroutine reads it, the test's
// goroutine consumes it.
type output struct {
	source  *os.File
	pipe    string // the name of the pipe in /proc, or ""
	started time.Time
	eof     chan struct{} // closed when no process holds the pipe, or Stop closed it
	eofTime time.Time     // valid once eof is closed

	mu      sync.Mutex
	lines   []line
	next    int           // index of the first line that is not consumed
	changed chan struct{} // closed and replaced with each line
}

type line struct {
	text string
	at   time.Duration // since the start
}

// attach prepares for reading from r.
func (o *output) attach(r *os.File) {
	o.source, o.pipe = r, pipeName(r)
	o.started = time.Now()
	o.eof = make(chan struct{})
}

// read reads lines until the end of the output. A last line without a newline
// counts too.
func (o *output) read() {
	for in := bufio.NewReader(o.source); ; {
		text, err := in.ReadString('\n')
		if text != "" {
			o.add(strings.TrimRight(text, "\r\n"))
		}
		if err != nil {
			o.eofTime = time.Now()
			close(o.eof)
			return
		}
	}
}

func (o *output) add(text string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.lines = append(o.lines, line{text, time.Since(o.started)})
	close(o.changed)
	o.changed = make(chan struct{})
}

// consume consumes lines up to and including the first that matches. If none
// matches, it returns a channel that is closed when there is another line.
func (o *output) consume(match func(string) []string) (found []string, more <-chan struct{}) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for o.next < len(o.lines) {
		text := o.lines[o.next].text
		o.next++
		if found := match(text); found != nil {
			return found, nil
		}
	}
	return nil, o.changed
}

// Lines returns a copy of the lines read so far from stdout and stderr, in the
// order in which they were written, without newlines. It does not wait. It is
// safe for concurrent use.
func (p *Program) Lines() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	texts := make([]string, len(p.lines))
	for i, l := range p.lines {
		texts[i] = l.text
	}
	return texts
}

// shownLines bounds the transcript: a program in a crash loop writes without
// end.
const shownLines = 200

// transcript returns the output with the seconds since the start. It marks the
// lines that are not consumed.
func (o *output) transcript() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.lines) == 0 {
		return "no output"
	}
	var b strings.Builder
	b.WriteString("output (>: not consumed by Expect):")
	first := max(0, len(o.lines)-shownLines)
	if first > 0 {
		fmt.Fprintf(&b, "\n  (%d lines)", first)
	}
	for i, l := range o.lines[first:] {
		mark := ' '
		if first+i >= o.next {
			mark = '>'
		}
		fmt.Fprintf(&b, "\n%c %8.4f %s", mark, l.at.Seconds(), l.text)
	}
	return b.String()
}

// Expect waits for the next line that the regular expression pattern matches.
// It consumes that line and those before it, and returns the match and its
// submatches, as FindStringSubmatch does. It fails the test if no line matches
// in time, or if the output ends first: that is when every process that holds
// it has exited.
func (p *Program) Expect(pattern string) []string {
	p.t.Helper()
	return p.ExpectN(1, pattern)[0]
}

// ExpectN calls Expect n times, with one timeout for all. It is for lines of
// several processes.
func (p *Program) ExpectN(n int, pattern string) [][]string {
	p.t.Helper()
	re := p.compile(pattern)
	timeout := time.NewTimer(waitLimit(p.t))
	defer timeout.Stop()
	var all [][]string
	for len(all) < n {
		found, problem := p.awaitLine(re.FindStringSubmatch, timeout.C)
		if problem != "" {
			p.fatalf("line %d of %d that matches %q: %s", len(all)+1, n, pattern, problem)
		}
		all = append(all, found)
	}
	return all
}

// ExpectAll waits until each of the regular expressions has matched a line, in
// any order. A line counts for the first pattern that matches it and has no
// line yet. ExpectAll consumes the lines up to the last match, and returns the
// matches in the order of the patterns. It is for lines of several processes.
func (p *Program) ExpectAll(patterns ...string) [][]string {
	p.t.Helper()
	missing := make([]*regexp.Regexp, len(patterns)) // nil once matched
	for i, pattern := range patterns {
		missing[i] = p.compile(pattern)
	}
	timeout := time.NewTimer(waitLimit(p.t))
	defer timeout.Stop()
	all := make([][]string, len(patterns))
	match := func(text string) []string {
		for i, re := range missing {
			if re == nil {
				continue
			}
			if all[i] = re.FindStringSubmatch(text); all[i] != nil {
				missing[i] = nil
				return all[i]
			}
		}
		return nil
	}
	for n := range patterns {
		if _, problem := p.awaitLine(match, timeout.C); problem != "" {
			p.fatalf("%d of %d lines, no line for %v: %s", n, len(patterns), missing, problem)
		}
	}
	return all
}

// NextLine waits for the next line that is not consumed, consumes it and
// returns it. It fails the test if the output ends first, or if no line is
// written in time.
func (p *Program) NextLine() string {
	p.t.Helper()
	timeout := time.NewTimer(waitLimit(p.t))
	defer timeout.Stop()
	found, problem := p.awaitLine(func(text string) []string { return []string{text} }, timeout.C)
	if problem != "" {
		p.fatalf("next line: %s", problem)
	}
	return found[0]
}

func (p *Program) compile(pattern string) *regexp.Regexp {
	p.t.Helper()
	re, err := regexp.Compile(pattern)
	if err != nil {
		p.fatalf("%v", err)
	}
	return re
}

// awaitLine waits for a line that matches, or returns the reason why there is
// none.
func (p *Program) awaitLine(match func(string) []string, timeout <-chan time.Time) (
	found []string, problem string) {
	for {
		atEOF := waitClosed(p.eof, 0) // before reading the lines: none is added after it
		found, more := p.consume(match)
		if found != nil {
			return found, ""
		}
		if atEOF {
			p.waitDone(leakTimeout) // so that the message has the exit status
			return nil, "end of the output"
		}
		select {
		case <-more:
		case <-p.eof:
		case <-timeout:
			return nil, "timeout"
		}
	}
}
