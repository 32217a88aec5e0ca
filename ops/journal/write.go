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
	now := time.Now()
	if rec.Time.IsZero() {
		rec.Time = now
	}
	rec.PID = os.Getpid()
	line, err := rec.lines()
	if err != nil {
		return err
	}
	// If the file cannot be replaced, the record goes to the open one.
	if err = j.reopenIfMoved(now); err == nil {
		if reason := j.rotationReason(int64(len(line)), now); reason != "" {
			err = j.rotate(reason, now)
		}
	}
	if err != nil {
		err = fmt.Errorf("records go to the previous file: %w", err)
	}
	state, stateErr := j.missingState(now)
	j.state.apply(rec)
	if state != nil {
		line = append(state, line...)
	}
	lineErr := j.append(line, now)
	if state != nil && lineErr == nil {
		j.stateMissing, j.takeoverMissing = false, false
	}
	return errors.Join(err, stateErr, lineErr)
}

// missingState returns a record of the current state if the file lacks records
// that could not be written. Only the active manager writes it: a reader takes
// it for the state of the pool.
func (j *Journal) missingState(now time.Time) ([]byte, error) {
	if !j.stateMissing && !j.takeoverMissing || j.isShared() {
		return nil, nil
	}
	rec := Record{Time: now, Event: Rotated{reasonGap, j.state.state()}, PID: os.Getpid()}
	if j.takeoverMissing {
		rec.Event = TookOver{j.state.state()}
	}
	return rec.lines()
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
		j.stateMissing = true
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

// openFile opens the file for appending. If a previous writer died within a
// line, the next write ends that line first.
func (j *Journal) openFile() error {
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
	j.file, j.size, j.oldest, j.partial = f, size, time.Time{}, last[0] != '\n'
	if size == 0 {
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
