package guest

// Version is this release.
const Version = "0.1.0"
