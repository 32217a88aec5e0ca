//go:build !unix

package record

import "syscall"

type usageData struct{}

func usageToData(*syscall.Rusage) *usageData { return nil }
func (d *usageData) rusage() *syscall.Rusage { return nil }
