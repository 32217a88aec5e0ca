// Package activation reads the sockets that systemd and start_server hand to
// this process, and reports a new main process to systemd. It has no effect on
// systems without Unix processes.
package activation

// The environment variables by which Server::Starter's start_server and systemd
// hand sockets to a process.
const (
	StarterEnv           = "SERVER_STARTER_PORT"
	StarterGenerationEnv = "SERVER_STARTER_GENERATION"
	ListenPIDEnv         = "LISTEN_PID"
	ListenFDsEnv         = "LISTEN_FDS"
	ListenFDNamesEnv     = "LISTEN_FDNAMES"
)
