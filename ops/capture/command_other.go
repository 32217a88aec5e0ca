//go:build !unix

package capture

import (
	"os"
	"os/exec"
)

func setGroup(*exec.Cmd) {}

func awaitExit(int) bool { return false }

func killGroup(p *os.Process) { p.Kill() }

// unread cannot be known.
func unread(*os.File) int { return 0 }
