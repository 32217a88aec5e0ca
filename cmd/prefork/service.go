package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/prefork-go/prefork/ops/client"
	"github.com/prefork-go/prefork/ops/service"
)

func (a *app) startCommand() *cobra.Command {
	var dir string
	cmd := &cobra.Command{
		Use: "start", Aliases: []string{"up"}, GroupID: groupSteer, Args: cobra.NoArgs,
		Short: "Clear the stopped flag of a service. It starts no program",
		RunE:  func(*cobra.Command, []string) error { return a.start(dir) },
	}
	dirFlag(cmd, &dir)
	return cmd
}

func dirFlag(cmd *cobra.Command, dir *string) {
	cmd.Flags().StringVar(dir, "dir", "", "the directory of the service's files")
	cmd.MarkFlagDirname("dir")
}

// start clears the stopped flag.
func (a *app) start(dir string) error {
	s, err := a.service(dir, "")
	if err != nil {
		return err
	}
	was, err := s.Start()
	if err != nil {
		code := exitFailed
		if errors.Is(err, os.ErrPermission) {
			code = exitForbidden
		}
		return &exitError{code: code, text: a.prefix() + err.Error()}
	}
	text := "the stopped flag is cleared; the program can be started"
	if !was {
		text = "there is no stopped flag " + s.StopFile
	}
	if a.json {
		a.printJSON(struct {
			Manager    string `json:"manager"`
			WasStopped bool   `json:"was_stopped"`
		}{a.name, was})
	}
	a.printDone("%s", text)
	return nil
}

// service returns the service with the name of the chosen manager. Its files are
// in a directory that the user has named, or in one where a socket may be. The error
// of a service that is not found begins with also.
func (a *app) service(dir, also string) (*service.Service, error) {
	chosen := a.chosen()
	if chosen == "off" {
		return nil, a.failure(client.ErrNotRunning)
	}
	if chosen == "" {
		return nil, usagef("name the service with -s, such as -s web")
	}
	a.name = nameOf(chosen)
	dirs := []string{dir}
	if dir == "" {
		dirs = a.serviceDirs()
		for _, d := range dirs {
			if exists(filepath.Join(d, a.name+".stopped")) || exists(filepath.Join(d, a.name+".pid")) {
				dir = d
				break
			}
		}
	}
	if dir == "" {
		return nil, &exitError{code: exitNotRunning, text: fmt.Sprintf("%s%sthere is neither %s.pid nor %s.stopped of a service in %s. Name the directory with --dir",
			a.prefix(), also, a.name, a.name, strings.Join(dirs, ", "))}
	}
	s, err := service.New(a.name, dir)
	if err != nil {
		code := exitFailed
		if errors.Is(err, os.ErrPermission) {
			code = exitForbidden
		}
		return nil, &exitError{code: code, text: a.prefix() + err.Error()}
	}
	return s, nil
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

func (a *app) zapCommand() *cobra.Command {
	var dir string
	var e service.Escalation
	cmd := &cobra.Command{
		Use: "zap", Aliases: []string{"force-stop"}, GroupID: groupSteer, Args: cobra.NoArgs,
		Short: "Stop the program, and end it by signals if it does not stop",
		Long: "Stops the program and waits until its process is gone. It gets SIGTERM and SIGKILL if it is not.\n" +
			"If no process has the socket, it does so by the files of the service, and sets the stopped flag.",
		RunE: func(*cobra.Command, []string) error { return a.zap(e, dir) },
	}
	cmd.Flags().DurationVar(&e.Term, "term", 10*time.Second, "send SIGTERM after this time; 0 means never")
	cmd.Flags().DurationVar(&e.Kill, "kill", 20*time.Second, "send SIGKILL after this time; 0 means never")
	dirFlag(cmd, &dir)
	return cmd
}

func (a *app) zap(e service.Escalation, dir string) error {
	if e.Term < 0 || e.Kill < 0 {
		return usagef("--term and --kill must not be negative")
	}
	if dir != "" {
		return a.zapService(e, dir)
	}
	c, err := a.dial()
	if x, ok := err.(*exitError); ok && x.code == exitNotRunning {
		if a.chosen() == "" {
			return err
		}
		return a.zapService(e, dir)
	}
	if err != nil {
		return err
	}
	return a.zapManager(c, e)
}

// zapManager stops the process behind a socket.
func (a *app) zapManager(c *client.Client, e service.Escalation) error {
	proc, err := openPeer(c.Socket())
	switch {
	case errors.Is(err, os.ErrProcessDone):
		return &exitError{code: exitFailed, text: fmt.Sprintf("%smanager %d has exited, but another process has its socket, which is not a manager's any more",
			a.prefix(), c.Peer().PID)}
	case isRefused(err):
		return a.gone(c.Peer().PID, "")
	case err != nil:
		return &exitError{code: exitFailed, text: fmt.Sprintf("%scannot watch manager %d: %v: use prefork stop", a.prefix(), c.Peer().PID, err)}
	}
	defer proc.close()
	if !strings.HasPrefix(c.Socket(), "@") {
		if err := replaceable(c.Socket(), proc.uid); err != nil {
			return &exitError{code: exitForbidden, text: fmt.Sprintf("%s%v, so process %d need not be the manager, and zap ends no process by this socket: use prefork stop, or zap --dir with the files of the service",
				a.prefix(), err, proc.pid)}
		}
	}
	pid := proc.pid
	ctx, cancel := context.WithTimeout(context.Background(), max(a.timeout, e.Term+queryTimeout, e.Kill+queryTimeout))
	defer cancel()
	stopped := make(chan error, 1)
	go func() {
		ctx, cancel := context.WithTimeout(ctx, queryTimeout)
		defer cancel()
		_, err := c.Do(ctx, client.Command{Name: "stop", Pool: a.pool, Timeout: a.timeout, NoWait: true})
		stopped <- err
	}()
	exited := make(chan error, 1)
	go func() { exited <- proc.wait(ctx) }()
	term, kill := after(e.Term), after(e.Kill)
	by := ""
	for {
		select {
		case err := <-stopped:
			if errors.Is(err, client.ErrForbidden) {
				return a.failure(err)
			}
			if err != nil && !isGone(err) {
				a.note("%v", err)
			}
		case <-term:
			by = " after SIGTERM"
			if err := a.send(proc, pid, syscall.SIGTERM); err != nil {
				return err
			}
		case <-kill:
			by = " after SIGKILL"
			if err := a.send(proc, pid, syscall.SIGKILL); err != nil {
				return err
			}
		case err := <-exited:
			if ctx.Err() != nil {
				return &exitError{code: exitPending, text: fmt.Sprintf("%smanager %d has not exited yet", a.prefix(), pid)}
			}
			if err != nil {
				return &exitError{code: exitFailed, text: a.prefix() + err.Error()}
			}
			return a.gone(pid, by)
		}
	}
}

// after returns a channel that is ready after d; never for 0.
func after(d time.Duration) <-chan time.Time {
	if d == 0 {
		return nil
	}
	return time.After(d)
}

func (a *app) send(p *process, pid int, sig syscall.Signal) error {
	a.note("manager %d has not exited, sending it %s", pid, signalName(sig))
	err := p.signal(sig)
	if err == nil || errors.Is(err, os.ErrProcessDone) {
		return nil
	}
	return &exitError{code: exitForbidden, text: fmt.Sprintf("%scannot send %s to manager %d: %v", a.prefix(), signalName(sig), pid, err)}
}

func signalName(sig syscall.Signal) string {
	if sig == syscall.SIGKILL {
		return "SIGKILL"
	}
	return "SIGTERM"
}

func (a *app) gone(pid int, by string) error {
	if a.json {
		a.printJSON(struct {
			Manager string `json:"manager"`
			PID     int    `json:"pid"`
			By      string `json:"by,omitempty"`
		}{a.name, pid, strings.TrimPrefix(by, " after ")})
	}
	a.printDone("manager %d has exited%s", pid, by)
	return nil
}

// zapService stops a service by its files.
func (a *app) zapService(e service.Escalation, dir string) error {
	s, err := a.service(dir, "no manager is running, and ")
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), max(a.timeout, e.Term+queryTimeout, e.Kill+queryTimeout))
	defer cancel()
	pid, _, _ := s.Running()
	outcome, err := s.Zap(ctx, e)
	switch {
	case outcome == service.NotRunning:
		return &exitError{code: exitNotRunning, text: a.prefix() + "the service is not running; its stopped flag " + s.StopFile + " is set now"}
	case outcome == service.Exited:
		return a.gone(pid, "")
	case errors.Is(err, os.ErrPermission):
		return &exitError{code: exitForbidden, text: a.prefix() + err.Error()}
	case err != nil:
		return &exitError{code: exitFailed, text: a.prefix() + err.Error()}
	}
	return &exitError{code: exitPending, text: fmt.Sprintf("%sprocess %d has not exited yet; the stopped flag of the service is set", a.prefix(), pid)}
}

// lastRecord returns the time of the last record of a journal, and whether it is
// that of the manager's end.
func lastRecord(path string) (at time.Time, ended bool) {
	f, err := os.Open(path)
	if err != nil {
		return at, false
	}
	defer f.Close()
	const tail = 64 << 10
	if size, err := f.Seek(0, io.SeekEnd); err != nil || size == 0 {
		return at, false
	} else if _, err := f.Seek(max(0, size-tail), io.SeekStart); err != nil {
		return at, false
	}
	data, err := io.ReadAll(io.LimitReader(f, tail))
	if err != nil {
		return at, false
	}
	for line := range bytes.Lines(data) {
		var r struct {
			Time time.Time `json:"time"`
			Type string    `json:"type"`
		}
		if json.Unmarshal(line, &r) == nil && !r.Time.IsZero() {
			at, ended = r.Time, r.Type == "ended"
		}
	}
	return at, ended
}
