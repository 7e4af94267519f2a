//! A media element in Chromium that seeks in a long file.
