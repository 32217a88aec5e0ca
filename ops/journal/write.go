package journal

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/ops/internal/pidfile"
	"github.com/prefork-go/prefork/ops/record"
)

// Write appends a record. If rec.Time is zero, Write sets it to the time of the
// call. It always sets rec.PID to the pid of this process.
//
// If Write returns an error, the record may be lost, but its effect on the
// State is not: the next Write that succeeds writes the current state first.
// Each Write tries the file again. After Close, Write returns an error that
// matches fs.ErrClosed.
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
	// Rotation depends on the clock, not on the record's time, which the
	// caller may set.
	now := clock()
	if rec.Time.IsZero() {
		rec.Time = now
	}
	rec.PID = os.Getpid()
	line, err := rec.Lines()
	if err != nil {
		return err
	}
	// If the file cannot be replaced, the record goes to the open one.
	err = j.prepare(int64(len(line)), now)
	if j.file == nil { // the error says why
		j.missing = record.ReasonGap
		j.state.apply(rec)
		return err
	}
	state, stateErr := j.missingState(now)
	j.state.apply(rec)
	lineErr := j.append(append(state, line...), now)
	if len(state) > 0 && lineErr == nil {
		j.missing, j.takeoverMissing = "", false
	}
	return errors.Join(err, stateErr, lineErr)
}

// prepare ensures that the lock is in place, that the open file is the one at
// the path, and that it has room for n bytes.
func (j *Journal) prepare(n int64, now time.Time) error {
	lockErr := j.keepLock()
	err := j.follow()
	if err == nil {
		if reason := j.rotationReason(n, now); reason == "" {
			j.rotating = attempt{}
		} else {
			err = j.rotating.try(func() error { return j.rotate(reason, now) })
		}
	}
	if err != nil && j.file != nil {
		err = fmt.Errorf("records go to the previous file: %w", err)
	}
	return errors.Join(lockErr, err)
}

// keepLock restores the lock file if it was removed, or if its directory was
// moved.
func (j *Journal) keepLock() error {
	if j.isShared() {
		return nil // the active manager restores it
	}
	if j.locking.err != nil && j.lock.InPlace() {
		j.locking = attempt{}
	}
	err := j.locking.try(func() error {
		_, err := j.lock.Restore()
		return err
	})
	if err == nil || pidfile.DiskFull(err) { // the lock on the name remains
		return nil
	}
	return fmt.Errorf("lock: %w", err)
}

// missingState returns a record of the current state if the file lacks it, or
// lacks records that could not be written. Only the active manager writes it: a
// reader takes it for the state of the pool.
func (j *Journal) missingState(now time.Time) ([]byte, error) {
	if j.missing == "" && !j.takeoverMissing || j.isShared() {
		return nil, nil
	}
	if j.takeoverMissing {
		return Record{Time: now, Event: TookOver{State: j.state.state()}, PID: os.Getpid()}.Lines()
	}
	lines, err := Record{Time: now, Event: Rotated{Reason: j.missing, State: j.state.state()}, PID: os.Getpid()}.Lines()
	if s := j.state.starting; err == nil && !s.Started.IsZero() {
		var line []byte
		line, err = Record{Time: s.Started, Event: Started{PID: s.PID}, PID: os.Getpid()}.Line()
		lines = append(lines, line...)
	}
	return lines, err
}

// append writes lines with one call, so that two writers do not mix them.
func (j *Journal) append(lines []byte, now time.Time) error {
	if j.partial {
		lines = append([]byte{'\n'}, lines...)
	}
	n, err := j.file.Write(lines)
	j.size += int64(n)
	if j.oldest.IsZero() {
		j.oldest = now
	}
	if n > 0 {
		j.partial = n < len(lines)
	}
	if err != nil {
		j.missing = record.ReasonGap
		return err
	}
	err, j.asyncErr = j.asyncErr, nil
	switch {
	case j.cfg.Sync < 0:
		err = errors.Join(err, j.fsync(j.file))
	case j.cfg.Sync > 0 && j.syncTimer == nil:
		j.syncTimer = time.AfterFunc(j.cfg.Sync, j.sync)
	}
	return err
}

// openFile opens the file at the path for appending, in place of the open one.
func (j *Journal) openFile(folder *folder) error {
	f, created, err := folder.openToWrite()
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return err
	}
	if created && j.file != nil {
		// The new file gets the mode of the old one, whatever the umask. A
		// failure must not cost records, so the next Write reports it.
		old, err := j.file.Stat()
		if err == nil {
			err = f.Chmod(old.Mode().Perm())
		}
		j.asyncErr = errors.Join(j.asyncErr, err)
	}
	j.folder, j.file, j.oldest = folder, f, time.Time{}
	j.setSize(info.Size())
	if j.size == 0 {
		return nil
	}
	j.oldest = info.ModTime() // unless a record is found
	for rec, err := range Decode(io.NewSectionReader(f, 0, min(j.size, 1<<20))) {
		if err == nil {
			j.oldest = rec.Time
			break
		}
	}
	return nil
}

// setSize sets the size of the file. If another writer has not ended its last
// line, the next write ends it first.
func (j *Journal) setSize(size int64) {
	j.size, j.partial = size, false
	if size > 0 {
		last := make([]byte, 1)
		j.file.ReadAt(last, size-1) // after an error the additional newline harms nothing
		j.partial = last[0] != '\n'
	}
}

// sync syncs the file in the background, without blocking Write.
func (j *Journal) sync() {
	j.syncMu.Lock()
	defer j.syncMu.Unlock()
	j.mu.Lock()
	if j.closed { // Close has synced the file
		j.mu.Unlock()
		return
	}
	if j.syncTimer != nil {
		j.syncTimer.Stop()
		j.syncTimer = nil // a later record needs another sync
	}
	file, oldFiles := j.file, j.oldFiles
	j.oldFiles = nil
	j.mu.Unlock()
	err := j.syncAndClose(oldFiles)
	if fileErr := j.fsync(file); !errors.Is(fileErr, os.ErrClosed) { // closed by a failed Open
		err = errors.Join(err, fileErr)
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.asyncErr = errors.Join(j.asyncErr, err)
}

func (j *Journal) syncAndClose(files []*os.File) (err error) {
	for _, f := range files {
		err = errors.Join(err, j.fsync(f), f.Close())
	}
	return err
}
