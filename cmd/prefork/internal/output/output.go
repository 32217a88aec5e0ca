// Package output is the flags --log, --log-prefix, --log-json and --log-max: where
// the verbs run and watch write what their programs write.
package output

import (
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"strings"

	"github.com/prefork-go/prefork/internal/activation"
	"github.com/prefork-go/prefork/internal/marker"
	"github.com/prefork-go/prefork/internal/values"
	"github.com/prefork-go/prefork/ops/capture"
	"github.com/prefork-go/prefork/ops/capture/logfile"
)

// Values of --log that are no file.
const (
	Stderr = "-"
	None   = "none"
)

// Options are the values of the flags.
type Options struct {
	Log, LogMax        string
	LogPrefix, LogJSON bool
}

// command returns the line of the shell in a value of --log.
func command(value string) (line string, ok bool) {
	line, ok = strings.CutPrefix(value, "|")
	return strings.TrimSpace(line), ok
}

// IsFile reports whether the log is a file.
func (o Options) IsFile() bool {
	_, command := command(o.Log)
	return o.Log != Stderr && o.Log != None && !command
}

// Check checks the flags.
func (o Options) Check() error {
	_, _, err := parseMax(o.LogMax)
	switch {
	case err != nil:
		return err
	case o.LogMax != "" && !o.IsFile():
		return fmt.Errorf("--log-max is for a --log that is a file")
	case o.LogPrefix && o.LogJSON:
		return fmt.Errorf("--log-prefix cannot be combined with --log-json")
	case o.Log == None && (o.LogPrefix || o.LogJSON):
		return fmt.Errorf("--log none leaves the lines as they are, so it cannot be combined with --log-prefix or --log-json")
	}
	return nil
}

// parseMax parses a value of --log-max: SIZE or SIZE,N.
func parseMax(s string) (size int64, keep int, err error) {
	if s == "" {
		return 0, 0, nil
	}
	first, number, both := strings.Cut(s, ",")
	if size, err = values.Size(first); err == nil && size == 0 {
		err = fmt.Errorf("the size is 0")
	}
	if err == nil && both {
		if keep, err = strconv.Atoi(number); err != nil || keep < 1 {
			err = fmt.Errorf("%q is not a number of files", number)
		}
	}
	if err != nil {
		return 0, 0, fmt.Errorf("--log-max %s: %w: give it as 64M,10", s, err)
	}
	return size, keep, nil
}

// A Log is an open log.
type Log struct {
	*capture.Capture
	file *logfile.File // nil if it is none
}

// Reopen opens a file again that another program has moved. It does nothing if the
// log is no file.
func (l *Log) Reopen() error {
	if l == nil || l.file == nil {
		return nil
	}
	return l.file.Reopen()
}

// Open opens the log of programs; nil if they write to the streams of this process.
// The name is that of prefixes.
func (o Options) Open(name string, log *slog.Logger) (*Log, error) {
	if o.Log == None {
		return nil, nil
	}
	report := func(err error) {
		if err == nil {
			log.Info("the log takes lines again", "log", o.Log)
			return
		}
		log.Error("the log takes no lines", "log", o.Log, "err", err)
	}
	l := &Log{}
	sink, err := o.sink(l, func(err error) { log.Error("the command of the log has ended", "log", o.Log, "err", err) })
	if err != nil {
		return nil, fmt.Errorf("--log %s: %w", o.Log, err)
	}
	cfg := capture.Config{Sink: sink, Name: name, Report: report}
	switch {
	case o.LogPrefix:
		cfg.Format = capture.Prefix
	case o.LogJSON:
		cfg.Format = capture.JSON
	}
	l.Capture, err = capture.New(cfg)
	return l, err
}

// commandEnv returns the environment of the command: that of this process, except
// what systemd and start_server have addressed to this process.
func commandEnv() []string {
	var own []string
	if depth := os.Getenv(marker.DepthEnv); depth != "" {
		own = []string{marker.DepthEnv + "=" + depth}
	}
	return marker.ChildEnv(activation.WithoutNotify(os.Environ()), nil, own...)
}

func (o Options) sink(l *Log, report func(error)) (capture.Sink, error) {
	if o.Log == Stderr {
		return capture.NewStream(os.Stderr)
	}
	if line, ok := command(o.Log); ok {
		if line == "" {
			return nil, fmt.Errorf("there is no command behind the bar")
		}
		return capture.NewCommand(capture.CommandConfig{Args: []string{"/bin/sh", "-c", line}, Env: commandEnv(), Report: report})
	}
	size, keep, err := parseMax(o.LogMax)
	if err != nil {
		return nil, err
	}
	l.file, err = logfile.Open(logfile.Config{Path: o.Log, MaxSize: size, Keep: keep})
	return l.file, err
}
