// Package guard keeps root from the registers of package bpf, and, once it is
// sealed, from the interfaces that give hardware reports, so that no process but
// the helper gets a report that vouches for registers of its own making.
//
// [Arm] loads LSM programs, which deny it to everyone but the process that armed
// them, and to a later process that executes the same program: see [Exec], which
// comes first, and [Keep] for when the program is upgraded. [Guard.Seal] closes the report interfaces, until the next boot.
// Nothing takes a guard away again. [Guard.Denials] is what was denied, and to
// whom.
//
// docs/threat-model.md says what root can still do, and what stops it.
//
// It takes Linux 6.1, CONFIG_BPF_LSM with bpf among the modules of lsm= on the
// kernel's command line, and CONFIG_IMA for a helper that is started again. On
// other systems than Linux the package is empty.
package guard
