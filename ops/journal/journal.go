// Package journal writes the events of a prefork.Manager to a file, one JSON
// object per line, and reads them back. The records are for people, for other
// programs, and for the next manager: [Journal.Previous] returns how the
// previous manager ended and which workers it had.
//
//	{"time":"2026-11-25T07:00:00Z","pid":41,"type":"exit","data":{"slot":0,…}}
//
// Time is when the event happened, pid is the process that has written it, and
// data depends on the type.
//
// One process at a time writes a journal. Config.Observe connects it with a
// Manager:
//
//	j, err := journal.Open("/var/log/web/web.journal", journal.Config{})
//	if err != nil { ... }
//	defer j.Close()
//	pm, err := prefork.New(prefork.Config{Observe: journal.Observer(j, nil)})
//
// [Read], [ReadBackward] and [PreviousState] read a journal, also while it is
// written. [NewTextSink] writes the events for people, and [MultiSink] writes
// them to several places.
//
// On systems other than Unix, and on Solaris and AIX, Open returns an error
// that matches errors.ErrUnsupported. Reading works on all systems.
package journal

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/ops/internal/pidfile"
	"github.com/prefork-go/prefork/ops/record"
)

// Config holds the options of a Journal. The zero value is valid.
type Config struct {
	// MaxSize is the size in bytes at which the file is rotated: the Journal
	// renames it to a name that contains the time, and creates a new file.
	// Zero means 10 MiB; a negative value means no limit.
	MaxSize int64

	// MaxAge is the age at which the file is rotated, counted from its first
	// record. The age is checked by each Write. Zero means no limit.
	MaxAge time.Duration

	// KeepFiles is the number of rotated files that are kept. Zero means 10; a
	// negative value means all.
	KeepFiles int

	// KeepDays is the number of days for which rotated files are kept. Zero
	// means no limit. Files are deleted from the oldest on, in the order of
	// their rotation, and only as far as the times in their names are old.
	KeepDays int

	// Sync is the delay after which written records are synced to the disk,
	// so that they survive a crash of the machine. Zero leaves the time to
	// the operating system. SyncAlways syncs each record before Write returns;
	// that takes milliseconds, in which the Manager does nothing else, so a
	// delay should be preferred. Written records always survive a crash of the
	// process.
	Sync time.Duration

	// LockTimeout is the time for which Open waits for another process that
	// has the journal open. Zero means no time. A program that may be
	// restarted while its predecessor still exits should set it.
	LockTimeout time.Duration
}

// SyncAlways is the value of Config.Sync that syncs each record before Write
// returns.
const SyncAlways time.Duration = -1

const (
	defaultMaxSize   = 10 << 20
	defaultKeepFiles = 10
	fileMode         = 0o600 // of a new journal
)

// A LockedError is returned by Open if another process has the journal open.
type LockedError struct {
	Path string // of the journal
	PID  int    // zero if unknown, for example in another PID namespace
}

func (e *LockedError) Error() string {
	if e.PID == 0 {
		return fmt.Sprintf("journal %s: locked by a process with an unknown pid: "+
			"stop it, or use another path", e.Path)
	}
	return fmt.Sprintf("journal %s: locked by process %d: stop it, or use another path", e.Path, e.PID)
}

// A Journal is a file of records that this process writes. Use Open to create
// one. Its methods are safe for concurrent use. Write, Rotate and Close block
// for as long as the file system does.
//
// In a worker all methods are no-ops, so Open may be called in code that
// workers run too.
type Journal struct {
	path     string // absolute
	cfg      Config
	previous State
	fsync    func(*os.File) error // replaced by tests

	// isShared is bothManagersWrite, or replaced by tests.
	isShared func() bool

	syncMu sync.Mutex // held during a sync in the background; acquired before mu

	mu      sync.Mutex
	lock    *pidfile.File
	folder  *folder  // contains file
	file    *os.File // nil if it could not be created on a full disk
	closed  bool
	size    int64
	oldest  time.Time // of the first record in the file
	partial bool      // the last write did not end its line
	state   tracker

	// The reason of the Rotated to be written before the next record: the file
	// lacks the current state. It is empty if the file has it.
	missing string
	// The TookOver of this manager could not be written.
	takeoverMissing bool

	locking, following, rotating attempt

	removeErr string // of the last attempt to delete rotated files

	syncTimer *time.Timer   // not nil while a sync is pending
	oldFiles  []*os.File    // earlier files, to be synced and closed
	asyncErr  error         // of the background, for the next Write
	closing   chan struct{} // of a successor; closed by Close
}

// clock is the clock for records and rotation, replaced by tests.
var clock = time.Now

// lockSuffix is the suffix of the lock file.
const lockSuffix = ".lock"

// Open opens a journal for writing and writes a Started record. It creates the
// file if necessary, but not its directory. The directory must belong to this
// user or to root, and no other user or group must be able to write to it: they
// could replace the journal. A relative path is relative to the working
// directory at the time of the call.
//
// Open returns a *LockedError if another process has the journal open. The lock
// is a separate file with the pid of the process, named like the journal with
// the suffix ".lock". On Linux the path is locked as well, so that the journal
// remains locked if that file is removed.
//
// On Linux, Open succeeds if the disk is full. The first Write that succeeds
// then writes the current state and Started.
//
// The successor of an upgrade (prefork.Manager.Upgrade) inherits the lock. Both
// managers write to the journal until the old one has ended.
//
// In a worker Open opens nothing and returns a Journal without effect.
func Open(path string, cfg Config) (*Journal, error) {
	if cfg.MaxSize == 0 {
		cfg.MaxSize = defaultMaxSize
	}
	if cfg.KeepFiles == 0 {
		cfg.KeepFiles = defaultKeepFiles
	}
	j := &Journal{path: path, cfg: cfg, fsync: (*os.File).Sync, isShared: bothManagersWrite}
	if prefork.IsWorker() {
		return j, nil
	}
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, j.wrap(err)
	}
	j.path = abs
	if j.folder, err = openFolder(abs); err != nil {
		return nil, j.wrap(err)
	}
	if err := j.acquireLock(); err != nil {
		j.folder.close()
		return nil, err
	}
	j.passLock()
	j.mu.Lock() // a sync in the background may start
	defer j.mu.Unlock()
	if err := j.openFile(j.folder); err != nil && !pidfile.DiskFull(err) {
		return nil, errors.Join(j.wrap(err), j.release())
	}
	if err := j.writeStarted(); err != nil {
		return nil, errors.Join(j.wrap(err), j.release())
	}
	return j, nil
}

// writeStarted reads the previous state and writes the first record.
func (j *Journal) writeStarted() error {
	damaged, err := j.state.replay(j.folder.readBackward())
	if err != nil && !errors.Is(err, ErrNoStart) && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	j.previous = j.state.state()
	now, successor := clock(), j.isShared()
	if successor {
		j.state.reset(State{Started: now, PID: os.Getpid()})
	} else if damaged > 0 {
		j.missing = record.ReasonDamaged
	}
	err = j.write(Record{Time: now, Event: Started{PID: os.Getpid(), Successor: successor}})
	if err != nil && !pidfile.DiskFull(err) {
		return err
	}
	if successor {
		j.closing = make(chan struct{})
		go j.awaitTakeover()
	}
	return nil
}

// passLock passes the lock to a successor.
func (j *Journal) passLock() {
	prefork.PassFile(j.passedFile(), j.lock.File())
	prefork.PassFile(j.passedName(), j.lock.Name())
}

// passedFile and passedName are the names under which a successor inherits the
// two parts of the lock.
func (j *Journal) passedFile() string { return "journal " + j.path }
func (j *Journal) passedName() string { return "journal name " + j.path }

// bothManagersWrite reports whether another manager writes to the journal too:
// the predecessor until this manager has taken over, or the successor after it
// has taken over. Both use the same lock, and write each line with one call.
// Only the active manager, which has taken over and has no successor, rotates.
func bothManagersWrite() bool {
	select {
	case <-prefork.TookOver():
		return prefork.HandedOver()
	default:
		return true
	}
}

// awaitTakeover runs in a successor. It writes a TookOver record once the
// successor has taken over.
func (j *Journal) awaitTakeover() {
	select {
	case <-prefork.TookOver():
	case <-j.closing:
		return
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if !j.closed {
		j.asyncErr = errors.Join(j.lock.Write(), j.writeTookOver())
	}
}

// writeTookOver writes that this manager is the active one.
func (j *Journal) writeTookOver() error {
	j.missing = "" // the record contains the state
	err := j.write(Record{Event: TookOver{State: j.state.state()}})
	j.takeoverMissing = j.missing != ""
	return err
}

func (j *Journal) acquireLock() (err error) {
	file, name := prefork.PassedFile(j.passedFile()), prefork.PassedFile(j.passedName())
	if file != nil {
		if j.lock, err = pidfile.Adopt(j.path+lockSuffix, file, name); err == nil {
			return nil
		}
		file.Close() // for example, the lock file was removed; acquire a new one
	}
	name.Close()
	end := time.Now().Add(j.cfg.LockTimeout)
	for {
		var held *pidfile.HeldError
		j.lock, err = pidfile.AcquireOnFullDisk(j.path + lockSuffix)
		switch {
		case !errors.As(err, &held):
			return j.wrap(err)
		case !time.Now().Before(end):
			return &LockedError{j.path, held.PID}
		}
		// The holder exits, which is notified, or releases the lock, which
		// is not.
		exited, release := pidfile.WatchExit(held.Path, held.PID)
		select {
		case <-exited:
		case <-time.After(min(25*time.Millisecond, time.Until(end))):
		}
		release()
	}
}

// release closes the files and releases the lock, or leaves it to the other
// manager.
func (j *Journal) release() error {
	var err error
	if j.closing != nil {
		close(j.closing)
	}
	if j.file != nil {
		err = j.file.Close()
	}
	prefork.PassFile(j.passedFile(), nil)
	prefork.PassFile(j.passedName(), nil)
	if j.isShared() {
		err = errors.Join(err, j.lock.Close())
	} else {
		err = errors.Join(err, j.lock.Release())
	}
	return errors.Join(err, j.folder.close())
}

// ID returns the absolute path with the prefix "file:".
func (j *Journal) ID() string { return "file:" + j.path }

// Previous returns the state that the journal contained before Open: when the
// previous manager started, and which workers it had if it was killed. It is
// zero if there was no previous manager. As in PreviousState, a manager without
// an event does not count if there was one before it.
func (j *Journal) Previous() State { return j.previous }

// Close writes an Ended record, closes the file and releases the lock. It
// should be called after Manager.Run has returned. Further calls are no-ops.
func (j *Journal) Close() error {
	j.syncMu.Lock() // wait for a sync in the background
	defer j.syncMu.Unlock()
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.closed || prefork.IsWorker() {
		return nil
	}
	j.closed = true
	err := j.write(Record{Event: Ended{PID: os.Getpid()}})
	if j.syncTimer != nil {
		j.syncTimer.Stop()
	}
	if j.cfg.Sync != 0 && j.file != nil {
		err = errors.Join(err, j.syncAndClose(j.oldFiles), j.fsync(j.file))
	}
	return j.wrap(errors.Join(err, j.release()))
}

func (j *Journal) wrap(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("journal %s: %w", j.path, err)
}

// Observer returns a function for prefork.Config.Observe that writes each event
// to sink. If Write returns an error, the function logs it, unless the previous
// Write returned the same error. The Manager is not affected. Nil for log means
// slog.Default().
//
// The function is not safe for concurrent use. A Manager calls it from one
// goroutine at a time.
func Observer(sink Sink, log *slog.Logger) func(prefork.Event) { return PoolObserver(sink, "", log) }

// PoolObserver is Observer for one of several Managers that have one journal. Pool
// is the Name of the Manager: each Record has it.
func PoolObserver(sink Sink, pool string, log *slog.Logger) func(prefork.Event) {
	if log == nil {
		log = slog.Default()
	}
	logged := ""
	return func(ev prefork.Event) {
		err := sink.Write(Record{Time: clock(), Event: ev, Pool: pool})
		switch {
		case err == nil:
			logged = ""
		case err.Error() != logged:
			logged = err.Error()
			log.Error("cannot write the journal", "err", err)
		}
	}
}
