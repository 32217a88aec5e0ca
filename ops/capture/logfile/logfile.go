// Package logfile provides a Sink of package capture that writes to a file, and
// rotates it between lines. github.com/DeRuina/timberjack renames, compresses and
// deletes the files. It links compression, whose tables take 0.4 ms when a process
// starts, so workers of the same program should not link this package.
package logfile

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/DeRuina/timberjack"

	"github.com/prefork-go/prefork/ops/capture"
)

// Config configures a File.
type Config struct {
	// Path is the file. Rotated files are in the same directory:
	// "web-2026-11-25T07-00-00.000-size.log" beside "web.log". Only root and the
	// user of this process may be able to create files there.
	Path string

	// MaxSize is the number of bytes after which the file is rotated. Zero means
	// that only Rotate does it. A line is never divided.
	MaxSize int64

	// Keep is the number of rotated files that are kept. Zero means all.
	Keep int

	// MaxAge is the age after which rotated files are deleted, in whole days;
	// a part of a day counts as one. Zero means never.
	MaxAge time.Duration

	// Compress compresses rotated files with gzip.
	Compress bool

	// Mode is the mode of new files. Zero means 0640.
	Mode fs.FileMode
}

// A File is a capture.Sink that writes to a file. One process at a time may use
// the same path. Its methods are safe for concurrent use.
type File struct {
	cfg Config

	mu       sync.Mutex
	log      *timberjack.Logger
	size     int64
	torn     bool      // the last Write has ended within a line
	cut      bool      // the file ended within a line when it was opened
	tryAgain time.Time // a rotation has failed
	failed   error     // why
	closed   bool
}

var _ capture.Sink = (*File)(nil)

// retry is the delay after a rotation that has failed.
const retry = time.Second

// Open opens or creates the file.
func Open(cfg Config) (*File, error) {
	path, err := filepath.Abs(cfg.Path)
	switch {
	case cfg.Path == "":
		return nil, errors.New("logfile: Config.Path is empty")
	case err != nil:
		return nil, fmt.Errorf("logfile: %w", err)
	case cfg.MaxSize < 0 || cfg.Keep < 0 || cfg.MaxAge < 0:
		return nil, errors.New("logfile: Config has a negative number")
	}
	// Links are followed once: open checks the directories of the direct path, and a
	// link that is switched later leads nowhere else.
	dir := filepath.Dir(path)
	if err := checkDir(dir); err != nil {
		return nil, fmt.Errorf("logfile: %w", err)
	}
	if dir, err = filepath.EvalSymlinks(dir); err != nil {
		return nil, fmt.Errorf("logfile: %w", err)
	}
	cfg.Path = filepath.Join(dir, filepath.Base(path))
	f := &File{cfg: cfg}
	if err := f.open(); err != nil {
		return nil, fmt.Errorf("logfile: %w", err)
	}
	return f, nil
}

// open opens the path. It changes nothing if it fails. The caller holds mu.
func (f *File) open() error {
	if err := checkDir(filepath.Dir(f.cfg.Path)); err != nil {
		return err
	}
	mode := f.cfg.Mode
	if mode == 0 {
		mode = 0o640
	}
	info, err := os.Lstat(f.cfg.Path)
	if err == nil && !info.Mode().IsRegular() {
		return fmt.Errorf("%s is not a regular file", f.cfg.Path)
	}
	r, err := os.OpenFile(f.cfg.Path, os.O_RDWR|os.O_CREATE|os.O_APPEND, mode)
	if err != nil {
		return err
	}
	defer r.Close()
	size, err := r.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	last := []byte{'\n'}
	if size > 0 {
		if _, err := r.ReadAt(last, size-1); err != nil {
			return err
		}
	}
	// The previous manager may have been killed within a line.
	f.size, f.torn, f.cut = size, false, last[0] != '\n'
	f.tryAgain, f.failed = time.Time{}, nil
	compression := "none"
	if f.cfg.Compress {
		compression = "gzip"
	}
	f.log = &timberjack.Logger{
		Filename: f.cfg.Path,
		// File decides on the size: timberjack counts in MiB, and would also
		// rotate within a line.
		MaxSize:     1 << 30,
		MaxBackups:  f.cfg.Keep,
		MaxAge:      int((f.cfg.MaxAge + 24*time.Hour - 1) / (24 * time.Hour)),
		Compression: compression,
		FileMode:    f.cfg.Mode,
	}
	return nil
}

// Write implements capture.Sink. If a rotation fails, lines go to the file as it
// is, and Write returns the error together with len(p).
func (f *File) Write(p []byte) (n int, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return 0, fmt.Errorf("%w: %w", capture.ErrLost, os.ErrClosed)
	}
	if f.cut {
		if _, err := f.write([]byte("\n")); err != nil {
			return 0, fmt.Errorf("logfile: %w", err)
		}
		f.cut = false
	}
	for n < len(p) {
		m, err := f.write(p[n : n+f.fit(p[n:])])
		n += m
		if err != nil {
			return n, fmt.Errorf("logfile: %w", err)
		}
	}
	if f.failed != nil {
		return n, fmt.Errorf("logfile: %s cannot be rotated, and grows: %w", f.cfg.Path, f.failed)
	}
	return n, nil
}

// fit rotates the file if the next line does not fit, and returns how many bytes
// to write to it.
func (f *File) fit(p []byte) int {
	if f.cfg.MaxSize == 0 {
		return len(p)
	}
	if room := f.cfg.MaxSize - f.size; int64(len(p)) > room {
		first := bytes.IndexByte(p, '\n') + 1 // of a line, or of the rest of one
		if first == 0 {
			first = len(p)
		}
		if int64(first) > room && f.size > 0 && !f.torn && f.rotate("size") == nil {
			room = f.cfg.MaxSize
		}
		if f.failed != nil {
			return len(p)
		}
		return max(first, bytes.LastIndexByte(p[:max(0, min(room, int64(len(p))))], '\n')+1)
	}
	return len(p)
}

// rotate rotates the file, unless that has failed a moment ago.
func (f *File) rotate(reason string) error {
	if f.failed != nil && time.Now().Before(f.tryAgain) {
		return f.failed
	}
	f.failed = f.log.RotateWithReason(reason)
	if f.failed != nil {
		f.tryAgain = time.Now().Add(retry)
		return f.failed
	}
	f.size = 0
	return nil
}

func (f *File) write(p []byte) (int, error) {
	n, err := f.log.Write(p)
	f.size += int64(n)
	if n > 0 {
		f.torn = p[n-1] != '\n'
	}
	return n, err
}

// Rotate rotates the file now. It waits for a Write that blocks.
func (f *File) Rotate() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return os.ErrClosed
	}
	f.tryAgain = time.Time{}
	return f.rotate("request")
}

// Reopen opens the path again, after another program such as logrotate has
// renamed the file. If that fails, lines go to the file that was open.
func (f *File) Reopen() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return os.ErrClosed
	}
	old := f.log
	if err := f.open(); err != nil {
		return err
	}
	return old.Close()
}

// Close closes the file, and waits until old files are compressed and deleted. If
// ctx ends first, Close returns an error, and both go on in another goroutine: the
// process should not end then, or an old file may remain uncompressed. A Write that
// the system keeps from returning cannot be ended.
func (f *File) Close(ctx context.Context) error {
	closed := make(chan error, 1)
	go func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		if f.closed {
			closed <- nil
			return
		}
		f.closed = true
		closed <- f.log.Close()
	}()
	select {
	case err := <-closed:
		return err
	case <-ctx.Done():
		return fmt.Errorf("logfile: %s is not closed yet: %w", f.cfg.Path, ctx.Err())
	}
}
