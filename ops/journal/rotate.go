package journal

import (
	"errors"
	"time"

	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/ops/internal/pidfile"
	"github.com/prefork-go/prefork/ops/record"
)

// Rotate rotates the file now. It is a no-op if the file is empty, while a
// successor and its predecessor both write to the journal, and after Close.
func (j *Journal) Rotate() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.closed || prefork.IsWorker() || j.isShared() {
		return nil
	}
	now := clock()
	if err := j.follow(); err != nil {
		return j.wrap(err)
	}
	if j.size == 0 {
		return nil
	}
	if err := j.rotate(record.ReasonRequest, now); err != nil {
		return j.wrap(err)
	}
	lines, err := j.missingState(now)
	if err == nil {
		err = j.append(lines, now)
	}
	if err == nil {
		j.missing = ""
	}
	return j.wrap(err)
}

// rotationReason returns why the file must be rotated before n more bytes are
// written. It returns "" if the file need not be rotated.
func (j *Journal) rotationReason(n int64, now time.Time) string {
	if j.oldest.After(now) { // the clock went back
		j.oldest = now
	}
	switch {
	case j.size == 0 || j.isShared():
	case j.cfg.MaxSize > 0 && j.size+n > j.cfg.MaxSize:
		return record.ReasonSize
	case j.cfg.MaxAge > 0 && now.Sub(j.oldest) >= j.cfg.MaxAge:
		return record.ReasonAge
	}
	return ""
}

// rotate renames the file and opens a new one.
func (j *Journal) rotate(reason string, now time.Time) error {
	files, err := j.folder.rotatedFiles()
	if err != nil {
		return err
	}
	name, err := j.folder.names.rotated(files, reason, now)
	if err != nil {
		return err
	}
	if err := j.folder.rename(name); err != nil {
		return err
	}
	if err := j.switchFile(j.folder, reason); err != nil {
		return errors.Join(err, j.folder.renameBack(name))
	}
	f, _ := j.folder.names.parse(name)
	j.removeOld(append(files, f), now)
	return nil
}

// removeOld deletes rotated files because of KeepFiles and KeepDays. Both go by
// the order of the files, because the clock may have been wrong.
func (j *Journal) removeOld(files []rotatedFile, now time.Time) {
	if j.cfg.KeepFiles < 0 && j.cfg.KeepDays <= 0 {
		return
	}
	kept := files[:0]
	for _, f := range files {
		if j.folder.isRegular(f.name) { // anything else is not a file of the journal
			kept = append(kept, f)
		}
	}
	remove := expired(kept, j.cfg.KeepDays, now)
	if j.cfg.KeepFiles >= 0 {
		remove = max(remove, len(kept)-j.cfg.KeepFiles)
	}
	var err error
	for _, f := range kept[:max(remove, 0)] {
		err = errors.Join(err, j.folder.remove(f.name))
	}
	// A failure must not cost records, so the next Write reports it. It is
	// reported once, because it occurs at each rotation.
	text := ""
	if err != nil {
		text = err.Error()
	}
	if text != j.removeErr {
		j.removeErr = text
		j.asyncErr = errors.Join(j.asyncErr, err)
	}
}

// firstClock is earlier than any journal. A clock that shows an earlier time has
// not been set since the machine started: many have no battery, and begin in 1970.
var firstClock = time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)

// expired returns the number of files that are older than a number of days. It
// counts from the oldest file to the first that is not that old. A file of the
// future, or of a time before any journal, shows only that the clock was wrong, and
// is as old as the next one.
func expired(files []rotatedFile, days int, now time.Time) (n int) {
	if days <= 0 {
		return 0
	}
	limit := now.Add(-time.Duration(days) * 24 * time.Hour)
	for i, f := range files {
		switch {
		case f.time.After(now), f.time.Before(firstClock) && !now.Before(firstClock):
		case f.time.Before(limit):
			n = i + 1
		default:
			return n
		}
	}
	return n
}

// follow ensures that records go to the file at the path: it notices if the file
// or its directory was moved or removed, or if the other manager has rotated the
// file. It also notices if another process has truncated the file or written to
// it.
func (j *Journal) follow() error {
	if j.file == nil { // it could not be created
		return j.following.try(j.reopen)
	}
	size, inPlace, other, err := examine(j.file, j.path)
	if err != nil {
		return err
	}
	if size != j.size {
		j.resized(size)
	}
	if inPlace {
		j.following = attempt{}
		return nil
	}
	if other <= 0 && j.isShared() {
		// The active manager is about to write the first record of the new
		// file. Until then records go to the old file.
		return nil
	}
	return j.following.try(j.reopen)
}

// resized notes that another process has changed the size of the file: the other
// manager, or a program that copies and truncates it.
func (j *Journal) resized(size int64) {
	truncated := size < j.size
	j.setSize(size)
	if size == 0 {
		j.oldest = time.Time{}
	}
	if truncated && !j.isShared() {
		j.missing = record.ReasonTruncated
	}
}

// reopen opens the file at the path, whose directory may be another one.
func (j *Journal) reopen() error {
	if inPlace, err := j.folder.inPlace(); err != nil {
		return err
	} else if inPlace {
		return j.switchFile(j.folder, record.ReasonMoved)
	}
	// Another process may write there, so the lock is needed first.
	var held *pidfile.HeldError
	if errors.As(j.locking.err, &held) {
		return held
	}
	folder, err := openFolder(j.path)
	if err != nil {
		return err
	}
	old := j.folder
	if err := j.switchFile(folder, record.ReasonMoved); err != nil {
		folder.close()
		return err
	}
	old.close()
	return nil
}

// switchFile replaces the open file with the one at the path, and the folder
// with the given one. The state follows with the next record, so that
// PreviousState needs no other file.
func (j *Journal) switchFile(folder *folder, reason string) error {
	old := j.file
	if err := j.openFile(folder); err != nil {
		return err // records still go to the old file
	}
	if old == nil {
		return nil
	}
	if !j.isShared() { // else the active manager writes the state
		j.missing = reason
	}
	if j.cfg.Sync == 0 {
		old.Close()
	} else if j.oldFiles = append(j.oldFiles, old); len(j.oldFiles) == 1 {
		go j.sync() // at once, because each old file uses a descriptor
	}
	return nil
}

// retryInterval is the time after which a failed attempt is repeated, so that
// each record does not repeat it. It is well below a second, the time in which a
// journal notices that its directory was replaced.
const retryInterval = 250 * time.Millisecond

// An attempt is an operation that fails for as long as another process does not
// change something.
type attempt struct {
	err  error     // of the last attempt
	next time.Time // when to try again if it failed
}

// try calls f, or returns the error of the last call if that was just now.
func (a *attempt) try(f func() error) error {
	if a.err == nil || !time.Now().Before(a.next) {
		a.err = f()
		a.next = time.Now().Add(retryInterval)
	}
	return a.err
}
