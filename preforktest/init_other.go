//go:build !linux

package preforktest

import "errors"

func (p *Program) asInit() error { return errors.ErrUnsupported }
