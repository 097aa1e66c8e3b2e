//go:build linux && vmlab

package cdblab
