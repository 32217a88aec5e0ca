//go:build unix && !solaris && !aix

package logger

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A dir is a directory with the file current, those that were rotated before, and
// a lock.
type dir struct {
	path     string
	defaults settings // of the command line
	settings
	format format
	out    []byte // lines for current
	report func(format string, args ...any)
	worker *worker // nil before there is a processor

	lock    *os.File
	current *os.File
	fd      int   // of current
	size    int64 // of current
	opened  time.Time

	// killed is set if a logger that did not end cleanly has written to current.
	killed bool
	// restarted is set if the last logger of the directory did not end cleanly.
	restarted bool
	soon      bool // rotate at the next end of a line
	failing   bool // the last write has failed
	lost      bool // current was removed, and another one cannot be opened
}

// errLocked is the error of a directory that another logger uses.
var errLocked = errors.New("another logger uses the directory")

// closed is the mode of a file that is complete, as multilog and svlogd have it.
const closed = 0o100

func openDir(t target, f format, report func(string, ...any)) (*dir, error) {
	d := &dir{path: t.path, defaults: t.settings, format: f, report: report}
	if err := os.Mkdir(d.path, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	lock, err := os.OpenFile(d.file("lock"), os.O_WRONLY|os.O_CREATE|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0o600)
	if err != nil {
		return nil, err
	}
	d.lock = lock
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		lock.Close()
		if err == unix.EWOULDBLOCK {
			err = errLocked
		}
		return nil, fmt.Errorf("%s: %w", d.path, err)
	}
	// A logger that ends cleanly leaves a current that is closed.
	switch st, err := os.Lstat(d.file("current")); {
	case err == nil:
		d.restarted = st.Mode()&closed == 0
	case errors.Is(err, fs.ErrNotExist):
		d.restarted = len(rotatedFiles(d.path)) > 0
	}
	removeTemporary(d.path)
	if err := d.open(); err != nil {
		lock.Close()
		return nil, err
	}
	d.configure()
	return d, nil
}

// configure reads the file config.
func (d *dir) configure() {
	d.settings = readConfig(d.file("config"), d.defaults, d.report)
	d.format.prefix, d.format.patterns = d.prefix, d.patterns
	if !d.format.isPlain() && !d.endsLine() { // the next bytes are the rest of a line
		d.format.line, d.format.began = selected, true
	}
	if d.processor.isSet() && d.worker == nil {
		d.worker = newWorker(d.path, d.report)
	}
	d.process()
}

// process has rotated files processed, beside this goroutine.
func (d *dir) process() {
	if d.worker != nil {
		d.worker.look(d.processor)
	}
}

func (d *dir) file(name string) string { return filepath.Join(d.path, name) }

// open opens current, and marks it as open. It is not opened with O_APPEND, which
// splice refuses.
func (d *dir) open() error {
	f, err := os.OpenFile(d.file("current"), os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0o644)
	if err != nil {
		return err
	}
	st, err := f.Stat()
	var size int64
	if err == nil {
		size, err = f.Seek(0, io.SeekEnd)
	}
	if err != nil {
		f.Close()
		return err
	}
	d.killed = size > 0 && st.Mode()&closed == 0
	f.Chmod(st.Mode().Perm() &^ closed) // fails on file systems without modes
	d.current, d.fd, d.size, d.opened, d.lost = f, int(f.Fd()), size, time.Now(), false
	return nil
}

// sync has the system write a file to the disk.
func (d *dir) sync(f *os.File) {
	if err := f.Sync(); err != nil {
		d.report("%v", err)
	}
}

// finish marks a file as complete and closes it.
func finish(f *os.File) {
	if st, err := f.Stat(); err == nil {
		f.Chmod(st.Mode().Perm() | closed)
	}
	f.Close()
}

// reopen opens current again, which another program may have moved.
func (d *dir) reopen() {
	before, killed := d.current, d.killed
	if err := d.open(); err != nil {
		d.report("cannot open the file again, and goes on with the open one: %v", err)
		return
	}
	a, err := before.Stat()
	b, err2 := d.current.Stat()
	if err == nil && err2 == nil && os.SameFile(a, b) {
		d.killed = killed
		before.Close()
		return
	}
	d.soon = false
	d.sync(before)
	finish(before)
}

// follow adapts to a current that another program has emptied or removed.
func (d *dir) follow() {
	var st unix.Stat_t
	switch err := unix.Fstat(d.fd, &st); {
	case err != nil:
	case st.Nlink == 0:
		if !d.lost { // one message
			d.lost = true
			d.reopen()
		}
	case st.Size != d.size:
		if size, err := d.current.Seek(0, io.SeekEnd); err == nil {
			d.size = size
		}
	}
}

// room returns how many bytes fit into current.
func (d *dir) room() (n int64, limited bool) { return d.maxSize - d.size, d.maxSize > 0 }

// untilOld returns how long until current is too old.
func (d *dir) untilOld(now time.Time) (left time.Duration, ok bool) {
	return d.maxAge - now.Sub(d.opened), d.maxAge > 0 && d.size > 0 && !d.soon
}

// endsLine reports whether current ends with a line.
func (d *dir) endsLine() bool {
	if d.size == 0 {
		return true
	}
	var last [1]byte
	n, err := unix.Pread(d.fd, last[:], d.size-1)
	return err == nil && n == 1 && last[0] == '\n'
}

// endLine ends a line that is not complete.
func (d *dir) endLine() {
	if !d.endsLine() {
		d.write([]byte{'\n'})
	}
}

// rotateSoon rotates a current that is not empty, at the end of the line.
func (d *dir) rotateSoon() {
	switch {
	case d.size == 0:
	case d.endsLine():
		d.rotate()
	default:
		d.soon = true
	}
}

// output writes lines, and rotates between them.
func (d *dir) output(p []byte) {
	for len(p) > 0 {
		n, rotate := d.cut(p)
		d.write(p[:n])
		if rotate {
			d.rotate()
		}
		p = p[n:]
	}
}

// write writes bytes to current, however long it takes.
func (d *dir) write(p []byte) {
	for len(p) > 0 {
		n, err := unix.Write(d.fd, p)
		switch {
		case n > 0:
			d.wrote(int64(n))
			p = p[n:]
		case err != unix.EINTR:
			d.failed("write", err)
		}
	}
}

func (d *dir) wrote(n int64) {
	d.size += n
	d.restarted = false // from here on nothing comes again
	if d.failing {
		d.failing = false
		d.report("%s: writes again", d.path)
	}
}

// retryDelay is how long a logger waits after an error.
const retryDelay = 250 * time.Millisecond

// failed returns when an operation that has failed can be tried again. Until then
// the writers of the pipe wait.
func (d *dir) failed(operation string, err error) {
	if !d.failing {
		d.failing = true
		d.report("%s: cannot %s, and tries again: %v", d.path, operation, err)
	}
	if d.minFiles > 0 && (errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)) {
		if names := beyond(rotatedFiles(d.path), d.minFiles); len(names) > 0 {
			if err := os.Remove(d.file(names[0])); err == nil {
				d.report("%s: no space left: removed %s", d.path, names[0])
				return
			}
		}
	}
	time.Sleep(retryDelay)
	d.follow()
}

// stampLength is the length of @ and a time in the name of a rotated file.
const stampLength = 25

// suffix returns the end of the name of a file with a time, after the dot; "" for
// another name.
func suffix(name string) string {
	if len(name) <= stampLength || name[0] != '@' || name[stampLength] != '.' || strings.Trim(name[1:stampLength], "0123456789abcdef") != "" {
		return ""
	}
	return name[stampLength+1:]
}

// rotatedFiles returns the names of rotated files, the oldest first.
func rotatedFiles(path string) (names []string) {
	entries, _ := os.ReadDir(path)
	for _, e := range entries {
		switch suffix(e.Name()) {
		case "s", "u", "s.gz":
			names = append(names, e.Name())
		}
	}
	slices.Sort(names)
	return names
}

// beyond returns the first of the names, without those of the last files. A file
// may have two names while it is processed.
func beyond(names []string, keep int) []string {
	for i := len(names) - 1; i >= 0; i-- {
		if i == len(names)-1 || names[i][:stampLength] != names[i+1][:stampLength] {
			if keep--; keep < 0 {
				return names[:i+1]
			}
		}
	}
	return nil
}

// rotate gives current its final name and opens another one.
func (d *dir) rotate() {
	d.soon = false
	d.sync(d.current)
	names := rotatedFiles(d.path)
	last := ""
	if len(names) > 0 {
		last = names[len(names)-1]
	}
	name := nextName(last, time.Now()) + ".s"
	if d.killed || d.processor.isSet() {
		name = name[:len(name)-1] + "u"
	}
	for {
		err := os.Rename(d.file("current"), d.file(name))
		if err == nil {
			names = append(names, name)
			break
		}
		if errors.Is(err, fs.ErrNotExist) { // another program has moved it
			break
		}
		d.failed("rename the file", err)
	}
	// Only now: after a kill, a current that is complete would mean that the input
	// was taken from the pipe, too.
	finish(d.current)
	d.fd = -1
	d.process()
	if d.maxFiles > 0 {
		for _, name := range beyond(names, d.maxFiles) {
			if err := os.Remove(d.file(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
				d.report("%v", err)
			}
		}
	}
	for {
		err := d.open()
		if err == nil {
			return
		}
		d.failed("open a new file", err)
	}
}
