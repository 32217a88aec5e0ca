// Package journal writes down what happens to a prefork.Manager, one JSON object a line, and reads it back: for people,
// for other programs, and for the next manager, which learns from it how the last one ended.
//
//	{"time":"2026-11-25T07:00:00.123456789Z","pid":41,"type":"worker","data":{"slot":0,"gen":1,"ordinal":1,"pid":42,"state":"ready",…}}
//
// A Journal is a file that one process writes at a time. It is connected with a Manager by Config.Observe:
//
//	j, err := journal.Open("/var/log/web.journal", journal.Config{})
//	if err != nil { ... }
//	defer j.Close()
//	pm, err := prefork.New(prefork.Config{Observe: journal.Observer(j, nil)})
package journal

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/ops/internal/pidfile"
)

// Config says how a Journal is kept. The zero value is of use.
type Config struct {
	// MaxSize is the size in bytes beyond which the file is rotated: moved aside, under a name with the time, and begun
	// anew. 0 means 10 MiB, negative means never.
	MaxSize int64

	// MaxAge is the age at which the file is rotated, counted from its first record. It is looked at when something is
	// written. 0 means never.
	MaxAge time.Duration

	// Keep is how many rotated files are kept; 0 means 10, negative means all.
	Keep int

	// KeepDays is for how many days a rotated file is kept; 0 means without limit.
	KeepDays int

	// Sync says when what was written is safe even if the whole machine fails: so long after it was written, or, if SyncAlways, before
	// Write returns, which takes milliseconds in which the Manager does nothing else. 0 leaves it to the system. What was
	// written is safe from the death of the process in any case.
	Sync time.Duration

	// LockTimeout is how long Open waits for another process that has the journal; 0 means not at all.
	LockTimeout time.Duration
}

// SyncAlways is the Config.Sync that has each record on the disk before the next thing happens.
const SyncAlways time.Duration = -1

const (
	defaultMaxSize = 10 << 20
	defaultKeep    = 10
	fileMode       = 0o600 // of a journal that is made
)

// RunningError says that another process has the journal, and which.
type RunningError struct {
	Path string
	PID  int // 0 where the process cannot be seen from here
}

func (e *RunningError) Error() string {
	if e.PID == 0 {
		return fmt.Sprintf("journal %s: it is already running: a process that cannot be seen from here writes it", e.Path)
	}
	return fmt.Sprintf("journal %s: it is already running: process %d writes it", e.Path, e.PID)
}

// Journal is a file of records that this process writes. Its methods may be called from any goroutine. In a worker it does
// nothing: Open may stand in the part of main that workers run too.
type Journal struct {
	path     string
	cfg      Config
	previous State
	fsync    func(*os.File) error // for tests

	syncing sync.Mutex // held while the disk is waited for in the background; taken before mu

	mu     sync.Mutex
	lock   *pidfile.File
	file   *os.File
	closed bool
	size   int64
	began  time.Time // of the first record in the file
	torn   bool      // what was written last is not a whole line
	state  tracker
	behind bool          // something could not be written: the file does not say how things stand
	untold bool          // that this manager has taken over could not be written
	syncer *time.Timer   // set while something is to be synced
	moved  []*os.File    // files before this one, to be synced and closed
	err    error         // of what was done in the background
	tend   chan struct{} // in a successor: closed by Close
}

// Open opens a journal for writing, makes it if there is none, and writes that the manager has started. It fails with a
// *RunningError while another process has it; who has it is in a file beside it, with ".lock" at the end of its name, which the
// kernel locks. The directory must be there, and not be one in which every user may make files.
//
// A successor (prefork.Manager.Upgrade) inherits the journal: both managers write it until the old one has ended.
//
// In a worker the Journal does nothing, and nothing is opened.
func Open(path string, cfg Config) (*Journal, error) {
	if cfg.MaxSize == 0 {
		cfg.MaxSize = defaultMaxSize
	}
	if cfg.Keep == 0 {
		cfg.Keep = defaultKeep
	}
	j := &Journal{path: path, cfg: cfg, fsync: (*os.File).Sync}
	if prefork.IsWorker() {
		return j, nil
	}
	if shared, err := pidfile.CheckDir(filepath.Dir(path)); err != nil {
		return nil, j.wrap(err)
	} else if shared {
		return nil, j.wrap(errors.New("every user may make files in its directory, and so take its place when it is rotated: give it another one"))
	}
	if err := j.takeLock(); err != nil {
		return nil, err
	}
	prefork.PassFile(j.passedFile(), j.lock.File())
	j.mu.Lock() // a sync in the background may begin
	defer j.mu.Unlock()
	err := j.open()
	if err == nil {
		err = j.begin()
	}
	if err != nil {
		if j.file != nil {
			j.file.Close()
		}
		return nil, errors.Join(j.wrap(err), j.unlock())
	}
	return j, nil
}

// begin reads what was before, and writes the first record.
func (j *Journal) begin() error {
	previous, err := PreviousState(j.path)
	if err != nil && !errors.Is(err, ErrNoStart) {
		return err
	}
	j.previous = previous
	j.state.restore(previous)
	now, successor := time.Now(), j.shares()
	if successor {
		j.state.restore(State{Started: now, PID: os.Getpid()})
	}
	if err := j.write(Record{Time: now, Event: Started{PID: os.Getpid(), Successor: successor}}); err != nil || !successor {
		return err
	}
	j.tend = make(chan struct{})
	go j.awaitTakeOver()
	return nil
}

// passedFile is the name under which a successor inherits the lock.
func (j *Journal) passedFile() string { return "journal " + j.path }

// shares tells whether another manager writes the journal too: the one before this one, until it has let go, or the successor
// after it. The lock is one for both, each line is written by one call, and it is the manager that rules which rotates.
func (j *Journal) shares() bool {
	select {
	case <-prefork.TookOver():
		return prefork.HandedOver()
	default:
		return true
	}
}

// awaitTakeOver is a successor's: it writes that it has taken over.
func (j *Journal) awaitTakeOver() {
	select {
	case <-prefork.TookOver():
	case <-j.tend:
		return
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if !j.closed {
		j.err = errors.Join(j.lock.Write(), j.takeOver())
	}
}

// takeOver writes that this manager rules.
func (j *Journal) takeOver() error {
	j.behind = false // this says how things stand
	err := j.write(Record{Event: TookOver{j.state.state()}})
	j.untold = j.behind
	return err
}

func (j *Journal) takeLock() (err error) {
	if f := prefork.PassedFile(j.passedFile()); f != nil {
		if j.lock, err = pidfile.Adopt(j.path+".lock", f); err == nil {
			return nil
		}
		f.Close() // it was removed, say; then it is to be had anew
	}
	end := time.Now().Add(j.cfg.LockTimeout)
	for {
		var held *pidfile.HeldError
		j.lock, err = pidfile.Take(j.path + ".lock")
		switch {
		case !errors.As(err, &held):
			return j.wrap(err)
		case !time.Now().Before(end):
			return &RunningError{j.path, held.PID}
		}
		// Who has it gives it free, or dies; the one is not told by the other.
		ended, release := pidfile.Watch(held.Path, held.PID)
		select {
		case <-ended:
		case <-time.After(min(25*time.Millisecond, time.Until(end))):
		}
		release()
	}
}

// open opens the file to append to it, and ends a line that was cut off when its writer died.
func (j *Journal) open() error {
	f, err := pidfile.OpenAppend(j.path, fileMode)
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return err
	}
	size, last := info.Size(), []byte{'\n'}
	if size > 0 {
		if _, err := f.ReadAt(last, size-1); err != nil {
			f.Close()
			return err
		}
	}
	j.file, j.size, j.began, j.torn = f, size, time.Time{}, last[0] != '\n'
	if size == 0 {
		return nil
	}
	j.began = info.ModTime() // where no record says better
	for rec, err := range Decode(io.NewSectionReader(f, 0, min(j.size, 1<<20))) {
		if err == nil {
			j.began = rec.Time
			break
		}
	}
	return nil
}

// ID is the path, with "file:" before it.
func (j *Journal) ID() string { return "file:" + j.path }

// Previous is what the journal said before it was opened: when the manager before this one started, and which workers ran
// when it died. It is zero if there was none.
func (j *Journal) Previous() State { return j.previous }

// Write appends a record, whose Time is that of the call if it is zero. An error says what is wrong with the file; the next Write
// tries again. A record that could not be written is lost, but not what it says of the state: that is written before the next
// one.
func (j *Journal) Write(rec Record) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if prefork.IsWorker() {
		return nil
	}
	if j.closed {
		return j.wrap(fs.ErrClosed)
	}
	return j.wrap(j.write(rec))
}

func (j *Journal) write(rec Record) error {
	now := time.Now() // the record's time, which others may set, is not what files are kept by
	if rec.Time.IsZero() {
		rec.Time = now
	}
	rec.PID = os.Getpid()
	line, err := rec.lines()
	if err != nil {
		return err
	}
	// What is wrong with the file's name is no reason to lose the record.
	if err = j.follow(now); err == nil {
		if reason := j.due(int64(len(line)), now); reason != "" {
			err = j.rotate(reason, now)
		}
	}
	if err != nil {
		err = fmt.Errorf("it goes on in the file before: %w", err)
	}
	head, errHead := j.catchUp(now)
	j.state.apply(rec)
	if head != nil {
		line = append(head, line...)
	}
	errLine := j.append(line, now)
	if head != nil && errLine == nil {
		j.behind, j.untold = false, false
	}
	return errors.Join(err, errHead, errLine)
}

// catchUp is how things stand, where the file lacks what could not be written: nobody is to be told the state by what is
// there. A manager that does not rule has no say in it.
func (j *Journal) catchUp(now time.Time) ([]byte, error) {
	if !j.behind && !j.untold || j.shares() {
		return nil, nil
	}
	rec := Record{Time: now, Event: Rotated{reasonBehind, j.state.state()}, PID: os.Getpid()}
	if j.untold {
		rec.Event = TookOver{j.state.state()}
	}
	return rec.lines()
}

// append writes lines, in one call: then only the kernel can tear them.
func (j *Journal) append(line []byte, at time.Time) error {
	if j.torn {
		line = append([]byte{'\n'}, line...)
	}
	n, err := j.file.Write(line)
	j.size += int64(n)
	if j.began.IsZero() {
		j.began = at
	}
	if n > 0 {
		j.torn = n < len(line)
	}
	if err != nil {
		j.behind = true
		return err
	}
	err, j.err = j.err, nil
	switch {
	case j.cfg.Sync < 0:
		err = errors.Join(err, j.fsync(j.file))
	case j.cfg.Sync > 0 && j.syncer == nil:
		j.syncer = time.AfterFunc(j.cfg.Sync, j.sync)
	}
	return err
}

// Close writes that the manager has ended, and gives the journal free. A second call does nothing.
func (j *Journal) Close() error {
	j.syncing.Lock() // what is on its way to the disk is to be there
	defer j.syncing.Unlock()
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.closed || prefork.IsWorker() {
		return nil
	}
	j.closed = true
	err := j.write(Record{Time: time.Now(), Event: Ended{PID: os.Getpid()}})
	if j.syncer != nil {
		j.syncer.Stop()
	}
	if j.cfg.Sync != 0 {
		err = errors.Join(err, j.retire(j.moved), j.fsync(j.file))
	}
	if j.tend != nil {
		close(j.tend)
	}
	return j.wrap(errors.Join(err, j.file.Close(), j.unlock()))
}

// unlock gives the journal free, or leaves it to the other manager.
func (j *Journal) unlock() error {
	if j.shares() {
		return j.lock.Close()
	}
	return j.lock.Release()
}

func (j *Journal) wrap(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("journal %s: %w", j.path, err)
}

// Observer makes of a Sink what Config.Observe calls. An error of the Sink is logged when it comes up, and again when another
// one does; it does not disturb the Manager. nil as the logger means slog.Default().
func Observer(sink Sink, log *slog.Logger) func(prefork.Event) {
	if log == nil {
		log = slog.Default()
	}
	said := ""
	return func(ev prefork.Event) { // by one goroutine at a time
		err := sink.Write(Record{Time: time.Now(), Event: ev})
		switch {
		case err == nil:
			said = ""
		case err.Error() != said:
			said = err.Error()
			log.Error("cannot write the journal", "err", err)
		}
	}
}
