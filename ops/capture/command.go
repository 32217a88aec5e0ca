package capture

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"time"
)

// CommandConfig describes a program that takes lines on its standard input.
type CommandConfig struct {
	// Args is the program and its arguments. For a line of the shell, use
	// "/bin/sh", "-c" and the line.
	Args []string

	// Dir is the directory in which the program is started. "" means that of
	// this process.
	Dir string

	// Env is the environment of the program. nil means that of this process.
	Env []string

	// Report, if not nil, is called with an error when the program has ended or
	// cannot be started, by a goroutine of the Sink.
	Report func(error)
}

const (
	minRestart = 100 * time.Millisecond
	maxRestart = 10 * time.Second

	// lastTries is how often a command is started after Close without reading
	// anything of what is left.
	lastTries = 3
)

// A command keeps both ends of the pipe, so that lines which the program has not
// read yet are there for the next one.
type command struct {
	cfg  CommandConfig
	r, w *os.File

	minDelay, maxDelay time.Duration // before the next start

	closing chan struct{}
	ended   chan struct{} // closed after the last program
	once    sync.Once
	left    int // bytes that no program has read, valid after ended

	mu      sync.Mutex
	process *os.Process // not waited for yet, else nil
	alone   bool        // the number of its group may become another's
	killed  bool
}

// NewCommand starts a program and returns a Sink that writes to its standard
// input. If the program ends, it is started again, after a delay that grows from
// 100 ms to 10 s. Lines that are still in the pipe are then read by the new one;
// those that the old one has read and not yet written are lost.
//
// The program has a process group of its own, so that a signal from the terminal
// does not end it before the workers. It should end when its input ends.
func NewCommand(cfg CommandConfig) (Sink, error) {
	return newCommand(cfg, minRestart, maxRestart)
}

func newCommand(cfg CommandConfig, minDelay, maxDelay time.Duration) (*command, error) {
	if len(cfg.Args) == 0 {
		return nil, errors.New("capture: CommandConfig.Args is empty")
	}
	r, w, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("capture: %w", err)
	}
	c := &command{cfg: cfg, r: r, w: w, minDelay: minDelay, maxDelay: maxDelay, closing: make(chan struct{}), ended: make(chan struct{})}
	cmd, err := c.start()
	if err != nil {
		r.Close()
		w.Close()
		return nil, fmt.Errorf("capture: cannot start the log command: %w", err)
	}
	go c.keep(cmd)
	return c, nil
}

func (c *command) start() (*exec.Cmd, error) {
	cmd := exec.Command(c.cfg.Args[0], c.cfg.Args[1:]...)
	cmd.Dir, cmd.Env = c.cfg.Dir, c.cfg.Env
	cmd.Stdin, cmd.Stdout, cmd.Stderr = c.r, os.Stdout, os.Stderr
	setGroup(cmd)
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.process, c.alone = cmd.Process, false
	if c.killed {
		c.kill()
	}
	return cmd, nil
}

// wait waits for the program. It collects the status with mu locked, so that the
// program keeps its pid, the number of its group, while kill may use it.
func (c *command) wait(cmd *exec.Cmd) error {
	var err error
	if awaitExit(cmd.Process.Pid) {
		c.mu.Lock()
		err = cmd.Wait()
	} else { // this system cannot wait without freeing the pid
		c.mu.Lock()
		c.alone = true
		c.mu.Unlock()
		err = cmd.Wait()
		c.mu.Lock()
	}
	defer c.mu.Unlock()
	c.process = nil
	if err == nil {
		err = errors.New("exit status 0")
	}
	return err
}

// kill kills the program, and if it can the group. The caller holds mu.
func (c *command) kill() {
	switch {
	case c.process == nil:
	case c.alone:
		c.process.Kill()
	default:
		killGroup(c.process)
	}
}

// keep waits for the program and starts it again, until it ends after Close.
func (c *command) keep(cmd *exec.Cmd) {
	defer close(c.ended)
	defer c.r.Close()
	delay, tries := c.minDelay, 0
	for {
		began, err := time.Now(), error(nil)
		if cmd == nil {
			cmd, err = c.start()
		}
		if err == nil {
			err = c.wait(cmd)
			cmd = nil
		}
		if time.Since(began) > c.maxDelay {
			delay = c.minDelay
		}
		select {
		case <-c.closing:
			before := c.left
			if c.left = unread(c.r); c.left < before {
				tries = 0
			}
			if c.left == 0 || c.gaveUp() || tries == lastTries {
				return
			}
			tries++
		default:
		}
		if c.cfg.Report != nil {
			c.cfg.Report(fmt.Errorf("log command ended, and is started again: %w", err))
		}
		select {
		case <-time.After(delay):
		case <-c.closing:
		}
		delay = min(2*delay, c.maxDelay)
	}
}

func (c *command) gaveUp() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.killed
}

func (c *command) Write(p []byte) (int, error) { return c.w.Write(p) }

// Close ends the input of the program and waits for it.
func (c *command) Close(ctx context.Context) error {
	c.once.Do(func() {
		close(c.closing)
		c.w.Close() // also ends a Write
	})
	select {
	case <-c.ended:
		if c.left > 0 {
			return fmt.Errorf("capture: the log command did not read the last %d bytes", c.left)
		}
		return nil
	case <-ctx.Done():
	}
	c.mu.Lock()
	c.killed = true
	c.kill()
	c.mu.Unlock()
	<-c.ended
	return fmt.Errorf("capture: the log command did not end, and was killed: %w", ctx.Err())
}
