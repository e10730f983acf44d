/* SPDX-License-Identifier: Apache-2.0 */
/* The wire codec, whole: what the daemon and the client library share. */
#pragma once

#include "frame.h"
#include "wire.h"
