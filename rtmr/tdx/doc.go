// Package tdx is the registers of a TD, as Linux 6.16 and later show them: RTMR0
// to RTMR3, which anyone who may write their files can extend, and MRTD. [Open]
// finds them; they are an rtmr.Device.
//
// An extend cannot be taken back, and cannot be repeated. So [Device.Extend]
// gives a digest to the kernel in one write(2), which is tried again only where
// the kernel says that nothing was done; after any other error the register is
// read back from the TDX module.
//
// What the registers hold is vouched for by a quote: [Device.Quote]. [Device.Report]
// is for this machine alone.
//
// On systems other than Linux the package is empty.
package tdx
