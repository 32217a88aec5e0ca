package capture

import (
	"errors"
	"os"
	"sync/atomic"
	"time"
)

const (
	// endLines is how many lines Worker.Ended reports.
	endLines = 10

	// endWait bounds how long Worker.Ended waits for lines that a Sink which
	// takes nothing keeps in the pipe.
	endWait = time.Second

	// pipeSize is more than the capacity of a pipe, except one that its user
	// has made larger.
	pipeSize = 1 << 20
)

// A Worker is a worker program whose output is captured. Its methods do not
// block. They are called in this order, by one goroutine at a time: Started and
// Ended, or Cancel.
type Worker struct {
	// Stdout and Stderr are the ends of the pipes for the worker. Started and
	// Cancel close them.
	Stdout, Stderr *os.File

	c     *Capture
	name  string
	slot  int
	pid   int
	pipes []*pipe
	tail  *tail

	open atomic.Int32  // pipes from which the lines before the end are still to be read
	last chan struct{} // closed when there are none
}

// Started is called after the worker was spawned. It closes Stdout and Stderr in
// this process, and begins to read what the worker writes.
func (w *Worker) Started(pid int) {
	w.pid = pid
	w.last = make(chan struct{})
	w.open.Store(int32(len(w.pipes)))
	w.Stdout.Close()
	w.Stderr.Close()
	w.c.smu.Lock()
	defer w.c.smu.Unlock()
	for _, p := range w.pipes {
		if w.c.closed {
			p.r.Close()
			continue
		}
		p.setHead(w.c.cfg.Format, w.name)
		w.c.pipes[p] = struct{}{}
		w.c.running.Add(1)
		go p.run()
	}
}

// Cancel is called instead of Started if the worker could not be spawned.
func (w *Worker) Cancel() {
	for _, p := range w.pipes {
		p.r.Close()
	}
	w.Stdout.Close() // nil is allowed
	w.Stderr.Close()
}

// Ended is called after the worker has exited. Its last line is then written
// although it may have no newline. Lines of its children, which may still have the
// pipes, are captured until they have exited too.
//
// If last is not nil, it is called once, by another goroutine, with up to 10 of
// the last lines of the worker: when everything is read that it had written, or
// after a second if the Sink is that slow. Use it for the event of a bad end.
func (w *Worker) Ended(last func([]Line)) {
	for _, p := range w.pipes {
		p.ended.Store(true)
		p.wake()
	}
	if last == nil {
		return
	}
	w.c.smu.Lock()
	defer w.c.smu.Unlock()
	done := func() {}
	if !w.c.closed {
		w.c.running.Add(1)
		done = w.c.running.Done
	}
	go func() {
		defer done()
		timer := time.NewTimer(w.c.endWait)
		defer timer.Stop()
		select {
		case <-w.last:
		case <-w.c.aborted:
		case <-timer.C:
		}
		last(w.tail.last(endLines, w.pid))
	}()
}

// A pipe is the pipe of one stream. Except for the flags, its fields belong to
// the goroutine of run.
type pipe struct {
	w      *Worker
	c      *Capture
	stream Stream
	r      *os.File
	reader // of the system

	ended atomic.Bool // the worker has exited

	head      []byte // see setHead
	carry     []byte // the beginning of a line whose end was not yet read
	continued bool   // the next line is the rest of one that was cut
	now       time.Time
	sawEnd    bool
	sawClose  bool
	since     int  // bytes read since then
	drained   bool // everything is read that the worker had written
}

// run reads the pipe until all its writers have closed it, or until Close.
func (p *pipe) run() {
	defer p.c.running.Done()
	defer func() {
		p.r.Close()
		p.c.smu.Lock()
		delete(p.c.pipes, p)
		p.c.smu.Unlock()
	}()
	for more := true; more; {
		p.wait()
		more = p.pump()
	}
	p.finish()
}

// stirred reports whether run has to look at the pipe although it is empty.
func (p *pipe) stirred() bool {
	return p.c.closing.Load() || p.ended.Load() && !p.drained
}

// pump reads once and writes the lines. It returns false when the pipe is done.
func (p *pipe) pump() bool {
	c := p.c
	c.mu.Lock()
	defer c.mu.Unlock()
	// The flags are read before the pipe: if it is empty then, everything is
	// read that was written before.
	if p.ended.Load() && !p.sawEnd {
		p.sawEnd, p.since = true, 0
	}
	if c.closing.Load() && !p.sawClose {
		p.sawClose, p.since = true, 0
	}
	held := copy(c.in, p.carry)
	n, err := p.read(c.in[held:])
	empty := errors.Is(err, errEmpty)
	p.setTime()
	b := c.take(p, c.in[:held+n])
	done := err != nil && !empty
	if len(b) > 0 && (done || empty && (p.sawEnd || p.sawClose)) {
		c.line(p, b)
		p.continued, b = false, nil
	}
	p.carry = append(p.carry[:0], b...)
	c.flush()
	p.since += n
	all := empty || p.since >= pipeSize
	if p.sawEnd && all {
		p.finish()
	}
	return !done && !(p.sawClose && all)
}

func (p *pipe) setTime() {
	p.now = time.Now()
	if p.c.cfg.Format == JSON {
		p.c.stamp = p.now.UTC().AppendFormat(p.c.stamp[:0], time.RFC3339Nano)
	}
}

// finish notes that everything is read that the worker had written.
func (p *pipe) finish() {
	if !p.drained {
		p.drained = true
		if p.w.open.Add(-1) == 0 {
			close(p.w.last)
		}
	}
}

// errEmpty is returned by pipe.read if there is nothing to read now.
var errEmpty = errors.New("pipe is empty")
