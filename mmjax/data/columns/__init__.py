"""Columns: conversion of a field of a record into arrays of a batch."""
