//go:build !unix

package journal

import "syscall"

func signalName(syscall.Signal) string   { return "" }
func signalNumber(string) syscall.Signal { return 0 }

type usageData struct{}

func usageToData(*syscall.Rusage) *usageData { return nil }
func (d *usageData) rusage() *syscall.Rusage { return nil }
