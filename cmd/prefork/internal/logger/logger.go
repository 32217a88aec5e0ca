//go:build unix && !solaris && !aix

// Package logger writes its standard input to directories of rotated files, as
// svlogd of runit and multilog of daemontools do.
package logger

import (
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// The exit status of daemontools and runit.
const (
	exitUsage  = 100
	exitFailed = 111
)

// chunk is how much is read at once, the capacity of a pipe on Linux. In a chunk
// before its maximum size a file ends.
const chunk = 64 << 10

// A logger moves bytes from a descriptor to directories.
type logger struct {
	in   int
	step func() (n int, err error) // moves some; EAGAIN if there are none
	dirs []*dir
	*options
	buf     []byte
	scratch [2]int    // a pipe for copies of bytes that stay in the input
	errs    io.Writer // for lines that patterns select for it

	// A line that patterns cannot decide before it ends stays in the pipe, of
	// which no poll reports more bytes.
	midLine  bool          // the last byte that was delivered is not the end of a line
	held     int           // bytes of such a line; 0 if there is none
	holdFor  time.Duration // until it is looked at again
	hungUp   bool          // it does not end
	noSplice bool          // the file system has none

	signals chan os.Signal
	wake    *os.File // readable after a signal
	wakeFD  int
	// left is how many bytes are still read after SIGTERM; before, it is -1.
	left int
}

// Main writes the standard input to the directories that args name until it ends,
// or SIGTERM arrives. It returns the exit status. Messages are written to errs.
func Main(name string, args []string, errs io.Writer) (status int) {
	o, err := parse(args)
	if err != nil {
		fmt.Fprintf(errs, "%s: %v\nusage: %s %s\n", name, err, name, Usage)
		return exitUsage
	}
	// A closed stderr does not end the logger. A signal that is ignored would also be
	// ignored by processors.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	var mu sync.Mutex // workers report, too
	report := func(format string, args ...any) {
		mu.Lock()
		defer mu.Unlock()
		fmt.Fprintf(errs, name+": "+format+"\n", args...)
	}
	if err := serve(o, errs, report); err != nil {
		report("%v", err)
		return exitFailed
	}
	return 0
}

func serve(o *options, errs io.Writer, report func(string, ...any)) error {
	l := newLogger(o, 0)
	l.errs = errs
	if err := l.trap(); err != nil {
		return err
	}
	if err := l.open(report); err != nil {
		return err
	}
	return l.run()
}

func newLogger(o *options, in int) *logger {
	return &logger{in: in, options: o, buf: make([]byte, chunk), errs: io.Discard, wakeFD: -1, left: -1}
}

// open opens the directories.
func (l *logger) open(report func(string, ...any)) error {
	for _, t := range l.targets {
		d, err := openDir(t, format{stamp: l.stamp, length: l.length}, report)
		if err != nil {
			return err
		}
		l.dirs = append(l.dirs, d)
	}
	return l.chooseStep()
}

// trap has signals wake the loop from its poll.
func (l *logger) trap() error {
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	l.wake, l.wakeFD = r, int(r.Fd())
	trapped := make(chan os.Signal, 16)
	l.signals = make(chan os.Signal, 16)
	signal.Notify(trapped, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGALRM)
	go func() {
		for sig := range trapped {
			l.signals <- sig
			w.Write([]byte{0})
		}
	}()
	return nil
}

// run returns when the input has ended, or has been read after SIGTERM.
func (l *logger) run() error {
	for {
		l.handleSignals()
		if l.left == 0 {
			l.close()
			return nil
		}
		n, err := l.step()
		switch {
		case err == nil:
			if l.left > 0 {
				l.left -= n
			}
		case err == unix.EINTR:
		case err == unix.EAGAIN && l.left > 0:
			l.close()
			return nil
		case err == unix.EAGAIN:
			if err := l.wait(); err != nil {
				return err
			}
		case err == io.EOF:
			l.flush()
			for _, d := range l.dirs {
				d.endLine()
			}
			l.close()
			return nil
		default:
			l.close()
			return fmt.Errorf("cannot read the input: %w", err)
		}
	}
}

func (l *logger) close() {
	l.flush()
	if l.scratch[1] > 0 {
		unix.Close(l.scratch[0])
		unix.Close(l.scratch[1])
	}
	for _, d := range l.dirs {
		d.sync(d.current)
		finish(d.current)
	}
	for _, d := range l.dirs {
		if d.worker != nil {
			d.worker.end()
		}
	}
	for _, d := range l.dirs {
		if d.worker != nil {
			l.awaitWorker(d.worker)
		}
		d.lock.Close()
	}
}

// awaitWorker returns when a worker has ended. A SIGTERM leaves the files of all
// workers to the next logger.
func (l *logger) awaitWorker(w *worker) {
	for {
		select {
		case <-w.done:
			return
		case sig := <-l.signals:
			for _, d := range l.dirs {
				if d.worker != nil && sig == syscall.SIGTERM {
					d.worker.stop()
				}
			}
		}
	}
}

func (l *logger) handleSignals() {
	for {
		select {
		case sig := <-l.signals:
			switch sig {
			case syscall.SIGTERM:
				if l.left < 0 {
					l.left = l.available()
				}
			case syscall.SIGHUP:
				for _, d := range l.dirs {
					d.reopen()
					d.configure()
				}
			case syscall.SIGALRM:
				for _, d := range l.dirs {
					d.rotateSoon()
				}
			}
		default:
			return
		}
	}
}

// available returns how many bytes the input has now. A writer at full speed could
// otherwise keep the logger from its end.
func (l *logger) available() int {
	n, err := unix.IoctlGetInt(l.in, fionread)
	if err != nil {
		return 0
	}
	return max(n, 0)
}

// wait returns when there is input, a signal, or a file is too old.
func (l *logger) wait() error {
	timeout := -1
	for _, d := range l.dirs {
		if left, ok := d.untilOld(time.Now()); ok {
			// Rounded up, so that it does not poll again too early.
			if ms := int(left/time.Millisecond) + 1; timeout < 0 || ms < timeout {
				timeout = max(ms, 0)
			}
		}
	}
	fds := []unix.PollFd{{Fd: int32(l.in), Events: unix.POLLIN}, {Fd: int32(l.wakeFD), Events: unix.POLLIN}}
	if l.held > 0 {
		fds[0].Events = 0 // an end is reported nevertheless
		if ms := int(l.holdFor / time.Millisecond); timeout < 0 || ms < timeout {
			timeout = ms
		}
	}
	n, err := unix.Poll(fds, timeout)
	if err != nil && err != unix.EINTR {
		return fmt.Errorf("cannot wait for input: %w", err)
	}
	if n > 0 && fds[1].Revents != 0 {
		unix.Read(l.wakeFD, make([]byte, 16))
	}
	l.hungUp = n > 0 && fds[0].Revents&unix.POLLHUP != 0
	for _, d := range l.dirs {
		d.follow()
		if left, ok := d.untilOld(time.Now()); ok && left <= 0 {
			d.rotateSoon()
		}
	}
	return nil
}

// deliver writes input to the directories.
func (l *logger) deliver(in []byte) {
	if len(in) == 0 {
		return
	}
	if l.replace != nil {
		for i, b := range in {
			in[i] = l.replace[b]
		}
	}
	l.midLine = in[len(in)-1] != '\n'
	now := time.Now()
	for _, d := range l.dirs {
		d.out = d.format.append(d.out[:0], in, now)
		l.output(d)
	}
}

// flush delivers the bytes of a line that does not end.
func (l *logger) flush() {
	for _, d := range l.dirs {
		d.out = d.format.flush(d.out[:0], time.Now())
		l.output(d)
	}
}

func (l *logger) output(d *dir) {
	d.output(d.out)
	if len(d.format.alerts) > 0 {
		l.errs.Write(d.format.alerts)
		d.format.alerts = d.format.alerts[:0]
	}
}

// hasPatterns reports whether a line may have to be seen as a whole.
func (l *logger) hasPatterns() bool {
	return slices.ContainsFunc(l.dirs, func(d *dir) bool { return len(d.patterns) > 0 })
}

// read is the step for an input whose bytes cannot be copied first: a logger that
// is killed loses those that it has read and not written.
func (l *logger) read() (int, error) {
	fds := []unix.PollFd{{Fd: int32(l.in), Events: unix.POLLIN}}
	if n, err := unix.Poll(fds, 0); err != nil {
		return 0, err
	} else if n == 0 {
		return 0, unix.EAGAIN
	}
	n, err := unix.Read(l.in, l.limit(l.buf))
	switch {
	case err != nil:
		return 0, err
	case n == 0:
		return 0, io.EOF
	}
	l.deliver(l.buf[:n])
	return n, nil
}

// limit shortens a buffer to the number of bytes that are still read.
func (l *logger) limit(b []byte) []byte {
	if l.left >= 0 {
		return b[:min(len(b), l.left)]
	}
	return b
}
