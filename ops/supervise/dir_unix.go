//go:build unix && !solaris && !aix

package supervise

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/prefork-go/prefork/internal/flocks"
	"github.com/prefork-go/prefork/internal/safedir"
)

// A Dir is the directory supervise of a service, which this process holds. Its
// methods are safe for concurrent use.
type Dir struct {
	dir     *safedir.Dir
	lock    *os.File
	ok      int // not an os.File: clients that come and go would wake the poller
	control *os.File

	closed atomic.Bool

	mu      sync.Mutex        // held while files are written
	written map[string]string // content of the files by name, as far as known
}

// Open makes the directory supervise in the directory of a service, if it is not
// there, locks it, and opens its FIFOs ok and control: from then on clients see
// that the service has a supervisor, and their commands are kept for Commands.
// Open writes no status. It does not block.
//
// The directory is made with mode 0700, its files with those of runsv. Existing
// ones keep their mode and owner, by which an administrator may let another user
// control the service. supervise may be a symbolic link, also to a
// directory that does not exist yet.
//
// The error matches ErrLocked if another process holds the directory.
func Open(dir string) (*Dir, error) {
	d := &Dir{ok: -1, written: make(map[string]string)}
	err := d.open(dir)
	if err != nil {
		d.Close()
		return nil, err
	}
	return d, nil
}

func (d *Dir) open(dir string) (err error) {
	path := filepath.Join(dir, "supervise")
	if err := mkdir(path); err != nil {
		return err
	}
	// The owner of the service's directory chooses the programs that run as this
	// process's user, so a link of his may be followed; not those in supervise,
	// which can belong to a user who may only control the service.
	if d.dir, err = safedir.Hold(path); err != nil {
		return err
	}
	if d.lock, err = d.dir.OpenFile("lock", unix.O_WRONLY, 0o600); err != nil {
		return err
	}
	err = unix.Flock(int(d.lock.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if err == unix.EWOULDBLOCK {
		return &LockedError{d.lock.Name(), flocks.Holder(d.lock)}
	} else if err != nil {
		return &fs.PathError{Op: "flock", Path: d.lock.Name(), Err: err}
	}
	// O_RDWR: a FIFO with a writer has no end, so reading it goes on when a client
	// has closed it.
	control, err := d.fifo("control", unix.O_RDWR)
	if err != nil {
		return err
	}
	d.control = os.NewFile(uintptr(control), filepath.Join(path, "control"))
	d.ok, err = d.fifo("ok", unix.O_RDONLY)
	return err
}

// mkdir makes a directory. A link to a directory that does not exist makes that
// one: its file system may be empty after each boot.
func mkdir(path string) error {
	err := os.Mkdir(path, 0o700)
	if !errors.Is(err, fs.ErrExist) {
		return err
	}
	target, linkErr := os.Readlink(path)
	if linkErr != nil {
		return nil
	}
	if !filepath.IsAbs(target) {
		target = filepath.Join(filepath.Dir(path), target)
	}
	if err := os.Mkdir(target, 0o700); !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}

// SetDown writes the file down in the directory of a service, or removes it. A
// service with the file is not started by the next supervisor. It follows no link
// of that name.
func SetDown(dir string, down bool) error {
	d, err := safedir.Hold(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	if !down {
		if err := d.Remove("down"); !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	}
	f, err := d.Create("down", 0o644)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return f.Close()
}

// fifo opens a FIFO, and makes it if it is not there.
func (d *Dir) fifo(name string, access int) (fd int, err error) {
	path := filepath.Join(d.dir.Path(), name)
	if err := mkfifo(d.dir, name, 0o600); err != nil && err != unix.EEXIST {
		return -1, &fs.PathError{Op: "mkfifo", Path: path, Err: err}
	}
	for {
		fd, err = unix.Openat(int(d.dir.Fd()), name, access|unix.O_NONBLOCK|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != unix.EINTR {
			break
		}
	}
	var st unix.Stat_t
	switch {
	case err != nil:
		fd = -1
	default:
		if err = unix.Fstat(fd, &st); err == nil && st.Mode&unix.S_IFMT != unix.S_IFIFO {
			err = errors.New("not a FIFO: remove it")
		}
	}
	if err != nil {
		if fd >= 0 {
			unix.Close(fd)
		}
		return -1, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	return fd, nil
}

// Commands calls f with each byte that clients write to the FIFO control, in
// order, from one goroutine of its own, until Close. Unknown bytes are passed on,
// too. It returns at once, and may be called once. f may call all methods of the
// Dir; it may still run when Close returns.
func (d *Dir) Commands(f func(command byte)) {
	go func() {
		buf := make([]byte, 64)
		for {
			n, err := d.control.Read(buf)
			for _, c := range buf[:n] {
				if d.closed.Load() {
					return
				}
				f(c)
			}
			if err != nil {
				return // closed: with a writer of its own it has no end
			}
		}
	}()
}

// Write writes those of the files pid, stat and status that differ from their last
// content. Each is written to NAME.new, which then replaces NAME, so a
// client reads the old content or the new one. After an error some may be written;
// the next Write tries the others again.
func (d *Dir) Write(s Status) error {
	status, err := s.MarshalBinary()
	if err != nil {
		return err
	}
	pid := ""
	if s.PID != 0 {
		pid = strconv.Itoa(s.PID) + "\n"
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return errors.Join(
		d.write("pid", pid),
		d.write("stat", s.String()+"\n"),
		d.write("status", string(status)),
	)
}

// WriteTally writes the file death_tally as Write does.
func (d *Dir) WriteTally(b []byte) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.write("death_tally", string(b))
}

func (d *Dir) write(name, content string) error {
	if d.closed.Load() {
		return &fs.PathError{Op: "write", Path: filepath.Join(d.dir.Path(), name), Err: fs.ErrClosed}
	}
	if last, ok := d.written[name]; ok && last == content {
		return nil
	}
	if err := d.replace(name, content); err != nil {
		delete(d.written, name)
		return err
	}
	d.written[name] = content
	return nil
}

func (d *Dir) replace(name, content string) (err error) {
	next := name + ".new"
	f, err := d.dir.Create(next, 0o644)
	if errors.Is(err, fs.ErrExist) { // of a supervisor that was killed
		if err := d.dir.Remove(next); err != nil {
			return err
		}
		f, err = d.dir.Create(next, 0o644)
	}
	if err != nil {
		return err
	}
	_, err = f.WriteString(content)
	err = errors.Join(err, f.Chmod(0o644), f.Close()) // whatever the umask
	if err == nil {
		if err = replace(int(d.dir.Fd()), next, name); err != nil {
			err = &os.LinkError{Op: "rename", Old: f.Name(), New: filepath.Join(d.dir.Path(), name), Err: err}
		}
	}
	if err != nil {
		d.dir.Remove(next)
	}
	return err
}

// Close gives the directory back, and leaves its files in place, as runsv does. It
// closes ok last: a client that sees the supervisor gone can start the next one.
// Further calls are no-ops.
func (d *Dir) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed.Swap(true) {
		return nil
	}
	var err error
	if d.control != nil {
		err = d.control.Close()
	}
	if d.lock != nil {
		// A process that is being started has the descriptor until its exec, so
		// closing it alone would not release the lock at once.
		unix.Flock(int(d.lock.Fd()), unix.LOCK_UN)
		err = errors.Join(err, d.lock.Close())
	}
	if d.dir != nil {
		err = errors.Join(err, d.dir.Close())
	}
	if d.ok >= 0 {
		err = errors.Join(err, unix.Close(d.ok))
	}
	return err
}
