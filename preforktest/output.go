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

// output is what a program has written. One goroutine reads, the test's consumes.
type output struct {
	source  *os.File
	pipe    string // what /proc calls the pipe, or "" where it calls it nothing
	started time.Time
	eof     chan struct{} // closed when no process holds the pipe any more, or it was closed here
	eofTime time.Time     // valid when eof is closed

	mu      sync.Mutex
	lines   []line
	next    int           // the first line that was not yet consumed
	changed chan struct{} // closed and replaced with every line
}

type line struct {
	text string
	at   time.Duration // since the start, for the transcript
}

// attach prepares for reading from r.
func (o *output) attach(r *os.File) {
	o.source, o.pipe = r, pipeName(r)
	o.started = time.Now()
	o.eof = make(chan struct{})
}

// read takes line after line up to the end. A last one without an end of line counts too.
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

// take consumes lines up to and including the first that matches. If there is none, it returns a channel that is closed
// when there is another line.
func (o *output) take(match func(string) []string) (found []string, more <-chan struct{}) {
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

// Lines returns a copy of the lines read so far from stdout and stderr, in the order in which they were written, without
// their ends. It does not wait.
func (p *Program) Lines() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	texts := make([]string, len(p.lines))
	for i, l := range p.lines {
		texts[i] = l.text
	}
	return texts
}

// shownLines bounds the transcript in a message: a program in a crash loop writes without end.
const shownLines = 200

// transcript is the output for a human, with the seconds since the start, and a mark where consuming has stopped.
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

// Expect waits for the next line that the regular expression pattern matches, consumes it and those before it, and
// returns the match and its submatches, as FindStringSubmatch does. It fails the test if the output ends first, which it
// does when every process that holds it has ended, or if the line does not come.
func (p *Program) Expect(pattern string) []string {
	p.t.Helper()
	return p.ExpectN(1, pattern)[0]
}

// ExpectN is Expect n times, for lines that come from several processes; the limit of time is for all of them together.
func (p *Program) ExpectN(n int, pattern string) [][]string {
	p.t.Helper()
	re, err := regexp.Compile(pattern)
	if err != nil {
		p.fatalf("%v", err)
	}
	timeout := time.NewTimer(waitLimit(p.t))
	defer timeout.Stop()
	var all [][]string
	for len(all) < n {
		found, problem := p.await(re.FindStringSubmatch, timeout.C)
		if problem != "" {
			p.fatalf("line %d of %d that matches %q: %s", len(all)+1, n, pattern, problem)
		}
		all = append(all, found)
	}
	return all
}

// ExpectAll waits until each of the regular expressions patterns has matched a line, in any order, a line counting for the
// first of them that it matches and that still waits for one. It consumes the lines up to there, and returns the matches in the order of the patterns.
// It is for lines of several processes.
func (p *Program) ExpectAll(patterns ...string) [][]string {
	p.t.Helper()
	waiting := make([]*regexp.Regexp, len(patterns))
	for i, pattern := range patterns {
		re, err := regexp.Compile(pattern)
		if err != nil {
			p.fatalf("%v", err)
		}
		waiting[i] = re
	}
	timeout := time.NewTimer(waitLimit(p.t))
	defer timeout.Stop()
	all := make([][]string, len(patterns))
	for n := range patterns {
		_, problem := p.await(func(text string) []string {
			for i, re := range waiting {
				if re == nil {
					continue
				}
				if all[i] = re.FindStringSubmatch(text); all[i] != nil {
					waiting[i] = nil
					return all[i]
				}
			}
			return nil
		}, timeout.C)
		if problem != "" {
			p.fatalf("%d of %d lines, of those that match %q this is left: %v: %s", n, len(patterns), patterns, waiting, problem)
		}
	}
	return all
}

// NextLine waits for the next line that was not yet consumed, consumes it and returns it. It fails the test if the output
// ends first, or if no line comes.
func (p *Program) NextLine() string {
	p.t.Helper()
	timeout := time.NewTimer(waitLimit(p.t))
	defer timeout.Stop()
	found, problem := p.await(func(text string) []string { return []string{text} }, timeout.C)
	if problem != "" {
		p.fatalf("next line: %s", problem)
	}
	return found[0]
}

// await waits for a line that matches, or says why there will be none.
func (p *Program) await(match func(string) []string, timeout <-chan time.Time) (found []string, problem string) {
	for {
		atEnd := waitClosed(p.eof, 0) // before the look at the lines: none is added after
		found, more := p.take(match)
		if found != nil {
			return found, ""
		}
		if atEnd {
			p.waitDone(leakWait) // the message is to say how the program ended
			return nil, "the output has ended"
		}
		select {
		case <-more:
		case <-p.eof:
		case <-timeout:
			return nil, "it has not come"
		}
	}
}
