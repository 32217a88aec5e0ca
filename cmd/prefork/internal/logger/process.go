//go:build unix && !solaris && !aix

package logger

import (
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/prefork-go/prefork/internal/proc"
)

// A processor changes a rotated file.
type processor struct {
	gzip    bool
	command string // of the shell
}

func (p processor) isSet() bool { return p.gzip || p.command != "" }

// suffix returns the end of the name of a file that was processed. The output of a
// command has the name that svlogd gives it.
func (p processor) suffix() string {
	if p.command == "" {
		return "s.gz"
	}
	return "s"
}

// A worker processes the files of a directory that are named .u, one after another
// and beside the logger. Its only state are these names, so that a kill loses none:
// the output is written to a .t file, which becomes a .s file when it is complete,
// and then the .u file is removed.
type worker struct {
	path   string
	report func(string, ...any)
	work   chan processor // of one element, which the logger replaces
	done   chan struct{}

	ending  context.Context // done if no more files come
	stopped context.Context // done if the files are left to the next logger
	end     context.CancelFunc
	stop    context.CancelFunc
	// patience is how long a command may take at the end. Its file is not lost.
	patience time.Duration
}

// atEnd is long for a command, and short for an operator. A service manager often
// has the patience of a minute and a half.
const atEnd = time.Minute

var errStopped = errors.New("stopped by SIGTERM")

func newWorker(path string, report func(string, ...any)) *worker {
	w := &worker{path: path, report: report, work: make(chan processor, 1), done: make(chan struct{}), patience: atEnd}
	w.ending, w.end = context.WithCancel(context.Background())
	w.stopped, w.stop = context.WithCancel(context.Background())
	go w.run()
	return w
}

// look has the worker look for files. It does not block.
func (w *worker) look(p processor) {
	select {
	case <-w.work:
	default:
	}
	w.work <- p
}

func (w *worker) file(name string) string { return filepath.Join(w.path, name) }

// run processes files until all are done after the end, or one of them fails then.
func (w *worker) run() {
	defer close(w.done)
	var p processor
	for failures := 0; ; {
		name := ""
		if p.isSet() {
			name = w.next()
		}
		if name == "" {
			select {
			case p = <-w.work:
				continue
			default:
			}
			select {
			case p = <-w.work:
			case <-w.ending.Done():
				select {
				case p = <-w.work: // it came just before
				default:
					return
				}
			}
			continue
		}
		err := w.process(name, p)
		switch {
		case err == nil && failures > 0:
			failures = 0
			w.report("%s: processes files again", w.path)
		case err != nil && w.ending.Err() != nil:
			w.report("%s: leaves %s to the next logger: %v", w.path, name, err)
			return
		case err != nil:
			if failures++; failures == 1 {
				w.report("%s: cannot process %s, and tries again: %v", w.path, name, err)
			}
			select {
			case p = <-w.work: // perhaps another command
			case <-w.ending.Done():
			case <-time.After(min(time.Second<<min(failures-1, 10), time.Minute)):
			}
		}
	}
}

// next returns the name of the oldest file to process.
func (w *worker) next() string {
	names := rotatedFiles(w.path)
	for i, name := range names {
		if name[len(name)-1] != 'u' {
			continue
		}
		if isProcessed(names, i) {
			os.Remove(w.file(name))
			continue
		}
		return name
	}
	return ""
}

// isProcessed reports whether a file has its two names: its logger was killed
// after it was processed.
func isProcessed(names []string, i int) bool {
	return i > 0 && names[i][stampLength+1] == 'u' && names[i-1][:stampLength] == names[i][:stampLength]
}

// process has a file processed. Its error is nil if there is no such file any more.
func (w *worker) process(name string, p processor) error {
	in, err := os.Open(w.file(name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	defer in.Close()
	stamp := name[:len(name)-1]
	temporary := w.file(stamp + "t")
	out, err := os.OpenFile(temporary, os.O_WRONLY|os.O_CREATE|os.O_TRUNC|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	defer os.Remove(temporary)
	if p.command != "" {
		err = w.execute(p.command, in, out)
	} else {
		err = compress(out, yielding{in, w.stopped})
	}
	if err == nil {
		err = out.Sync()
	}
	if st, err2 := in.Stat(); err2 == nil {
		out.Chmod(st.Mode().Perm() | closed)
	}
	if err2 := out.Close(); err == nil {
		err = err2
	}
	if err != nil {
		return err
	}
	if _, err := os.Lstat(w.file(name)); err != nil { // it has become too old
		return nil
	}
	if err := os.Rename(temporary, w.file(stamp+p.suffix())); err != nil {
		return err
	}
	if p.command != "" {
		os.Rename(w.file("newstate"), w.file("state"))
	}
	// After a loss of power, too, one of the files is there.
	if dir, err := os.Open(w.path); err == nil {
		dir.Sync()
		dir.Close()
	}
	if err := os.Remove(w.file(name)); !errors.Is(err, fs.ErrNotExist) { // it has become too old
		return err
	}
	return nil
}

func compress(out io.Writer, in io.Reader) error {
	z := gzip.NewWriter(out)
	if _, err := io.Copy(z, in); err != nil {
		return err
	}
	return z.Close()
}

// A yielding reader has the logger go on before each read, also if the process has
// one processor. It fails when its worker is stopped.
type yielding struct {
	in      io.Reader
	stopped context.Context
}

func (y yielding) Read(p []byte) (int, error) {
	runtime.Gosched()
	if y.stopped.Err() != nil {
		return 0, errStopped
	}
	return y.in.Read(p)
}

// execute runs a command of the shell. As below svlogd, it reads on descriptor 4
// what the last one has written to descriptor 5.
func (w *worker) execute(command string, in, out *os.File) error {
	state, err := os.OpenFile(w.file("state"), os.O_RDONLY|os.O_CREATE|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0o644)
	if err != nil {
		return err
	}
	defer state.Close()
	os.Remove(w.file("newstate")) // a command that has survived its logger may write to it
	newState, err := os.OpenFile(w.file("newstate"), os.O_WRONLY|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, 0o644)
	if err != nil {
		return err
	}
	defer newState.Close()
	cmd := exec.Command("/bin/sh", "-c", command)
	cmd.Dir = w.path
	cmd.Stdin, cmd.Stdout, cmd.Stderr = in, out, os.Stderr
	cmd.ExtraFiles = []*os.File{nil, state, newState}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	err = cmd.Start()
	if err == nil {
		err = w.await(cmd)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", command, err)
	}
	return nil
}

// await returns when a command has ended, or has to: then its group is killed. The
// command is waited for last, so that the number of the group stays its own.
func (w *worker) await(cmd *exec.Cmd) error {
	exited := make(chan struct{})
	go func() {
		proc.AwaitExit(cmd.Process.Pid)
		close(exited)
	}()
	late, stop := w.ending.Done(), (<-chan time.Time)(nil)
	for {
		why := error(nil)
		select {
		case <-exited:
			return cmd.Wait()
		case <-late:
			late, stop = nil, time.After(w.patience)
			continue
		case <-stop:
			why = fmt.Errorf("killed, since it has not ended after %v", w.patience)
		case <-w.stopped.Done():
			why = errStopped
		}
		syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		cmd.Wait()
		return why
	}
}

// removeTemporary removes the output of a processor whose logger was killed, or the
// file if it was complete. If the processor still runs, it writes to a file without a
// name.
func removeTemporary(path string) {
	entries, _ := os.ReadDir(path)
	for _, e := range entries {
		if suffix(e.Name()) == "t" {
			os.Remove(filepath.Join(path, e.Name()))
		}
	}
	names := rotatedFiles(path)
	for i, name := range names {
		if isProcessed(names, i) {
			os.Remove(filepath.Join(path, name))
		}
	}
}
