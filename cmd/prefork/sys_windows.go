package main

import (
	"io/fs"
	"os/exec"
)

func ownerOf(fs.FileInfo) (uid, gid int, ok bool) { return 0, 0, false }

func hasExited(int) bool { return false }

func ownGroup(*exec.Cmd) {}
