package monitor

import "context"

// A Monitor keeps the services of a directory running. Its methods are safe for
// concurrent use, and only Run blocks.
type Monitor struct{ cfg Config }

// New checks the configuration. It starts nothing.
func New(cfg Config) (*Monitor, error) { panic("not written yet") }

// Run keeps the services running until ctx ends or Shutdown is called, then stops
// all at once: each service, its finish, and then its logger, which reads to the
// end. It returns nil then, and an error if the directory cannot be watched. With
// Config.Once it returns when all services have ended. It may be called once.
func (m *Monitor) Run(ctx context.Context) error { panic("not written yet") }

// Rescan looks at the directory at once, and starts services again that have ended
// by a command x.
func (m *Monitor) Rescan() { panic("not written yet") }

// Shutdown makes Run stop all services and return.
func (m *Monitor) Shutdown() { panic("not written yet") }

// Kill is Shutdown with SIGKILL for all processes, also loggers and finish scripts.
func (m *Monitor) Kill() { panic("not written yet") }

// Services returns the state of all services, sorted by name.
func (m *Monitor) Services() []Status { panic("not written yet") }

// Do carries out a command as if its byte had been written to supervise/control of
// a service, or of a logger, "NAME/log". For a program the commands act in the same
// way. It returns an error if there is no such service. Unknown bytes are ignored.
func (m *Monitor) Do(name string, command byte) error { panic("not written yet") }
