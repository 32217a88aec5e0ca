//go:build !unix

package scoreboard

import "errors"

func prepare(int) error { return errors.ErrUnsupported }

func check(int) error { return errors.ErrUnsupported }

func mapPage(int) (*page, func() error, error) { return nil, nil, errors.ErrUnsupported }
